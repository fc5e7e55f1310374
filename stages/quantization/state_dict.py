"""Converts the state dict of a decoder to that of the same decoder with quantized matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from stages.base import StageError
from stages.model.config import DecoderConfig, QuantizationName
from stages.model.int8 import quantize_rows
from stages.model.parameters import parameters
from stages.model.quantization_schemes import SCHEMES, scale_name, stored_tensors
from stages.model.tensor_transfer import TensorTransfer

# The codes and scales of a weight, by the scheme that computes them.
QUANTIZERS: Mapping[QuantizationName, Callable[[Tensor], tuple[Tensor, Tensor]]] = {"int8": quantize_rows}


def quantize_state_dict(
    state: Mapping[str, Tensor], config: DecoderConfig, scheme: QuantizationName
) -> tuple[dict[str, Tensor], DecoderConfig]:
    """The quantized state dict and its config. `state` may load its tensors on access; each is read once.

    Raises StageError if the model is quantized already, or if a tensor of either model is left over.
    """
    if config.quantization is not None:
        raise StageError(f"the model is quantized already, to {config.quantization}")
    quantized = DecoderConfig.model_validate(config.model_dump() | {"quantization": scheme})
    shapes = {name: tensor.shape for name, tensor in stored_tensors(quantized).items()}
    written: dict[str, Tensor] = {}
    transfer = TensorTransfer(state, shapes, written.__setitem__)
    for name, parameter in parameters(config).items():
        value = transfer.take(name)
        if SCHEMES[scheme].quantizes(parameter):
            value, scale = QUANTIZERS[scheme](value)
            transfer.put(scale_name(name), scale)
        transfer.put(name, value)
    transfer.finish()
    return written, quantized
