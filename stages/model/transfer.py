"""Strict accounting while tensors go from one model to another: every source is used once, every target written once.

Losing weights without an error is the classic fault of conversions: the model still runs, only worse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from stages.base import StageError


class Transfer:
    """Moves tensors from `source` to a model whose tensors have the names and shapes of `target`.

    A source that loads its tensors as they are asked for, and a `write` that puts them into a file, keep one tensor
    in memory at a time.
    """

    def __init__(
        self, source: Mapping[str, Tensor], target: Mapping[str, Sequence[int]], write: Callable[[str, Tensor], None]
    ) -> None:
        self._source, self._target, self._write = source, target, write
        self._unused = dict.fromkeys(source)
        self._missing = dict.fromkeys(target)

    def take(self, name: str) -> Tensor:
        """A source tensor. Each can be taken once."""
        if name not in self._unused:
            raise StageError(f"the source has no tensor {name}, or it was used already")
        del self._unused[name]
        return self._source[name]

    def put(self, name: str, value: Tensor) -> None:
        """Write a target tensor. Each can be written once."""
        if name not in self._target:
            raise StageError(f"the target has no tensor {name}")
        if name not in self._missing:
            raise StageError(f"the target's tensor {name} was written twice")
        if list(value.shape) != list(self._target[name]):
            raise StageError(
                f"{name} would have the shape {list(value.shape)}; the target's is {[*self._target[name]]}"
            )
        del self._missing[name]
        self._write(name, value)

    def finish(self) -> None:
        """Raises StageError if a source tensor was left over or a target tensor not written."""
        if self._unused or self._missing:
            raise StageError(
                f"conversion lost tensors: unused {sorted(self._unused)}, not written {list(self._missing)}"
            )
