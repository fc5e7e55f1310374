"""Strict accounting when tensors move from one model to another: every source tensor is used exactly once and every
target tensor is written exactly once.

A conversion that loses weights without an error gives a model that still runs, only worse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from stages.base import StageError


class TensorTransfer:
    """Moves tensors from `source` to a model whose tensors have the names and shapes of `target`.

    One tensor is in memory at a time if `source` loads tensors on access and `write` puts them into a file.
    """

    def __init__(
        self, source: Mapping[str, Tensor], target: Mapping[str, Sequence[int]], write: Callable[[str, Tensor], None]
    ) -> None:
        self._source, self._target, self._write = source, target, write
        self._unused = dict.fromkeys(source)
        self._missing = dict.fromkeys(target)

    def take(self, name: str) -> Tensor:
        """A source tensor. Raises StageError if there is none of this name or it was taken before."""
        if name not in self._unused:
            raise StageError(f"the source has no tensor {name}, or it was used already")
        del self._unused[name]
        return self._source[name]

    def put(self, name: str, value: Tensor) -> None:
        """Write a target tensor. Raises StageError if there is none of this name and shape or it was written before."""
        if name not in self._target:
            raise StageError(f"the target has no tensor {name}")
        if name not in self._missing:
            raise StageError(f"the target's tensor {name} was written twice")
        if list(value.shape) != list(self._target[name]):
            raise StageError(f"{name} has shape {list(value.shape)}, but the target expects {[*self._target[name]]}")
        del self._missing[name]
        self._write(name, value)

    def finish(self) -> None:
        """Raises StageError if a source tensor was not taken or a target tensor not written."""
        if self._unused or self._missing:
            raise StageError(
                f"the conversion lost tensors: unused {sorted(self._unused)}, not written {list(self._missing)}"
            )
