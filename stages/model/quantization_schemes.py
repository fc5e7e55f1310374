"""Quantization schemes as data: which parameters a scheme quantizes, and what it stores for each of them.

This is the only definition of what a scheme quantizes. The layers of the model (`layers.py`), the forecast of memory
(`footprint.py`), the files of a checkpoint (`decoder_weights.py`) and the quantize stage all follow it. The module
does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from stages.model.config import DecoderConfig, QuantizationName
from stages.model.parameters import Parameter, Role, Shape, parameters

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a model in memory."""

    shape: Shape
    element_bytes: int
    quantized: bool = False  # it encodes a quantized parameter: its type never changes

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.element_bytes


@dataclass(frozen=True)
class QuantizationScheme:
    """A scheme that stores a matrix as integer codes of its shape and one scale for each row.

    A row is all of the last dimension, which a product sums over. Parameters whose role is not in `roles` stay in
    floating point.
    """

    roles: frozenset[Role]
    code_bytes: int  # of one code
    scale_bytes: int  # of one scale

    def quantizes(self, parameter: Parameter) -> bool:
        return parameter.role in self.roles

    def stored_tensors(self, name: str, parameter: Parameter) -> dict[str, StoredTensor]:
        """The tensors that replace the quantized parameter `name`."""
        return {
            name: StoredTensor(parameter.shape, self.code_bytes, quantized=True),
            scale_name(name): StoredTensor(parameter.shape[:-1], self.scale_bytes, quantized=True),
        }


SCHEMES: Mapping[QuantizationName, QuantizationScheme] = {
    # Norms, biases and learned positions are small. A router is small too, and its choices depend on small differences.
    "int8": QuantizationScheme(roles=frozenset({"embedding", "linear", "head"}), code_bytes=1, scale_bytes=4),
}


def scale_name(weight_name: str) -> str:
    """The name of the scales of a quantized weight: "lm_head.weight" -> "lm_head.scale"."""
    return f"{weight_name.removesuffix('weight')}scale"


def stored_tensors(config: DecoderConfig) -> dict[str, StoredTensor]:
    """Every tensor of a loaded model by name: parameters in float32, and what replaces those that are quantized."""
    scheme = SCHEMES[config.quantization] if config.quantization else None
    stored: dict[str, StoredTensor] = {}
    for name, parameter in parameters(config).items():
        if scheme is not None and scheme.quantizes(parameter):
            stored |= scheme.stored_tensors(name, parameter)
        else:
            stored[name] = StoredTensor(parameter.shape, FLOAT32_BYTES)
    return stored
