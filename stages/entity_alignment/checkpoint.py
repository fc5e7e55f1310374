"""The state of a training in one safetensors file: tensors, and the rest as JSON. Reading it executes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stages.base import StageError

TENSOR, ITEMS, LIST = "tensor", "items", "list"  # the kinds of values that JSON has to tell apart
REST = "rest"  # the key in the metadata of the file


def save(path: Path, state: Mapping[Any, Any]) -> None:
    """Write mappings, lists, tensors and JSON values, nested in each other: whole, or not at all."""
    from safetensors.torch import save as serialized

    tensors: dict[str, Tensor] = {}
    rest = json.dumps(_packed(state, tensors))
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(serialized(tensors, {REST: rest}))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path) -> dict[Any, Any]:
    """What `save` wrote; tuples are lists now. Raises StageError if the file is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            state = _unpacked(json.loads(file.metadata()[REST]), file)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StageError(f"{path} is not a whole checkpoint: {error}") from None
    return dict(state)


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().clone().contiguous()  # safetensors refuses memory that two tensors share
        return {TENSOR: name}
    if isinstance(value, Mapping):
        return {ITEMS: [[key, _packed(inner, tensors)] for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        return {LIST: [_packed(inner, tensors) for inner in value]}
    return value


def _unpacked(value: Any, file: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if TENSOR in value:
        return file.get_tensor(value[TENSOR])
    if ITEMS in value:
        return {key: _unpacked(inner, file) for key, inner in value[ITEMS]}
    return [_unpacked(inner, file) for inner in value[LIST]]
