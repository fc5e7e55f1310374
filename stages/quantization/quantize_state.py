"""A decoder's tensors turned into those of the same decoder with its matrices in int8."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from stages.base import StageError
from stages.model.config import DecoderConfig
from stages.model.quantized import quantize_rows
from stages.model.transfer import Transfer
from stages.model.weights import expected_tensors


def quantize_state(state: Mapping[str, Tensor], config: DecoderConfig) -> tuple[dict[str, Tensor], DecoderConfig]:
    """The quantized tensors, and the config that goes with them.

    Raises StageError if the model is quantized already, or if a tensor is left over on either side.
    """
    if config.quantization is not None:
        raise StageError(f"the model is quantized already, to {config.quantization}")
    quantized = DecoderConfig.model_validate(config.model_dump() | {"quantization": "int8"})
    target = {name: tensor.shape for name, tensor in expected_tensors(quantized).items()}
    written: dict[str, Tensor] = {}
    transfer = Transfer(state, target, written.__setitem__)
    for name in expected_tensors(config):
        value = transfer.take(name)
        scale_name = name.removesuffix("weight") + "scale"
        if name.endswith("weight") and scale_name in target:
            value, scale = quantize_rows(value)
            transfer.put(scale_name, scale)
        transfer.put(name, value)
    transfer.finish()
    return written, quantized
