"""How a model without values gets them: its parameters are replaced, and each rank reads the ranges that it owns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from stages.artifacts.checkpoint import WEIGHTS, Checkpoint
from stages.base import StageError
from stages.training.task import InitialValues


def materialise(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
    """Put `parameters` in the place of a model's own, by name; where modules share one, they go on sharing it.

    Raises TypeError if the model holds anything else that has no values.
    """
    new = {old: parameters[name] for name, old in model.named_parameters()}
    for module in model.modules():
        for key, old in module._parameters.items():
            if old is not None:
                module._parameters[key] = new[old]
    lacking = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if lacking:
        raise TypeError(f"{', '.join(lacking)} would never get values: a model in training has parameters alone")


def initial_weights(checkpoint: Checkpoint) -> InitialValues:
    """The weights of a checkpoint as initial values: read range by range, never the whole."""
    path = checkpoint.path / WEIGHTS

    def values(name: str, start: int, stop: int) -> Tensor:
        try:
            with safe_open(path, framework="pt") as reader:
                return stretch(reader, name, start, stop).float()
        except (OSError, SafetensorError) as error:
            raise StageError(f"{path}: {name} cannot be read ({error})") from error

    return values


def stretch(reader: Any, name: str, start: int, stop: int) -> Tensor:
    """Elements `start` to `stop` of a tensor in an opened safetensors file, in memory order: only the rows that they
    are in are read."""
    part = reader.get_slice(name)
    row = math.prod(part.get_shape()[1:])
    first = start // row
    rows: Tensor = part[first : -(-stop // row)]
    return rows.reshape(-1)[start - first * row : stop - first * row]
