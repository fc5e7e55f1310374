"""Strict accounting while tensors go from one model to another: every source is used once, every target written once.

Losing weights without an error is the classic fault of conversions: the model still runs, only worse.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from stages.base import StageError


class Transfer:
    """Moves tensors from `source` to a model whose tensors have the names and shapes of `target` (meta tensors do)."""

    def __init__(self, source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        self._source, self._target = dict(source), target
        self._written: dict[str, Tensor] = {}

    def take(self, name: str) -> Tensor:
        """A source tensor. Each can be taken once."""
        if name not in self._source:
            raise StageError(f"the source has no tensor {name}, or it was used already")
        return self._source.pop(name)

    def put(self, name: str, value: Tensor) -> None:
        """Write a target tensor. Each can be written once."""
        if name not in self._target:
            raise StageError(f"the target has no tensor {name}")
        if name in self._written:
            raise StageError(f"the target's tensor {name} was written twice")
        if value.shape != self._target[name].shape:
            raise StageError(
                f"{name} would have the shape {list(value.shape)}; the target's is {list(self._target[name].shape)}"
            )
        self._written[name] = value

    def finish(self) -> dict[str, Tensor]:
        """The target's tensors. Raises StageError if a source tensor was left over or a target tensor not written."""
        missing = [name for name in self._target if name not in self._written]
        if self._source or missing:
            raise StageError(f"conversion lost tensors: unused {sorted(self._source)}, not written {missing}")
        return self._written
