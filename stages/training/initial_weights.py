"""Values for a model without values: its parameters are replaced, and each rank reads the ranges that it owns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from stages.artifacts.checkpoint import WEIGHTS, Checkpoint
from stages.base import StageError
from stages.training.task import InitialValues


def replace_parameters(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
    """Replace a model's parameters by name, in place. Modules that share a parameter share its replacement.

    Raises TypeError if the model has buffers on the meta device, which nothing would ever fill.
    """
    new = {old: parameters[name] for name, old in model.named_parameters()}
    for module in model.modules():
        for key, old in module._parameters.items():
            if old is not None:
                module._parameters[key] = new[old]
    unfilled = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if unfilled:
        raise TypeError(
            f"nothing fills the buffers {', '.join(unfilled)} of the model: on the meta device a model in training may "
            "have parameters only"
        )


def initial_weights(checkpoint: Checkpoint) -> InitialValues:
    """The weights of a checkpoint as initial values, read range by range. Reading raises StageError if it fails
    or if a value is not finite."""
    path = checkpoint.path / WEIGHTS

    def values(name: str, start: int, stop: int) -> Tensor:
        try:
            with safe_open(path, framework="pt") as reader:
                found = read_range(reader, name, start, stop).float()
        except (OSError, SafetensorError) as error:
            raise StageError(f"{path}: {name} cannot be read ({error})") from error
        if not found.isfinite().all():
            raise StageError(f"{path} holds values that are not finite, in {name}")
        return found

    return values


def read_range(reader: Any, name: str, start: int, stop: int) -> Tensor:
    """Elements `start` to `stop` (exclusive) of a tensor in an open safetensors file, in memory order, 1-D.

    Reads only the rows that contain them.
    """
    part = reader.get_slice(name)
    row = math.prod(part.get_shape()[1:])
    first = start // row
    rows: Tensor = part[first : -(-stop // row)]
    return rows.reshape(-1)[start - first * row : stop - first * row]
