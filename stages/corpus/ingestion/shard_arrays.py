"""Arrays over all documents that are stored as one file per shard, and read through memory maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base import StageError

if TYPE_CHECKING:
    import numpy as np


def memory_mapped(
    files: Sequence[Path], starts: np.ndarray, kind: Any, shape: tuple[int, ...] = (-1,)
) -> list[np.ndarray]:
    """The arrays of shards. `starts`: the first row of each, and the number of rows; `shape`: with -1 for documents.

    Raises StageError if a file does not hold as many documents as there are.
    """
    import numpy as np

    found = []
    for file, count in zip(files, np.diff(starts).tolist(), strict=True):
        whole = tuple(count if size < 0 else size for size in shape)
        size = int(np.prod(whole)) * np.dtype(kind).itemsize
        if file.stat().st_size != size:
            raise StageError(f"{file} has {file.stat().st_size} bytes; expected {size} for {count} documents")
        found.append(np.memmap(file, kind, "r", shape=whole) if size else np.empty(whole, kind))
    return found


def gather_rows(shards: Sequence[np.ndarray], starts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The values of the given rows, in their order, from the arrays of all shards."""
    import numpy as np

    found = np.empty((len(rows), *shards[0].shape[1:]), shards[0].dtype)
    of = np.searchsorted(starts, rows, side="right") - 1
    for shard in np.unique(of).tolist():
        here = np.flatnonzero(of == shard)
        found[here] = shards[shard][rows[here] - starts[shard]]
    return found


def is_in_sorted(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Which values (bool) are in an ascending array. Unlike np.isin, it does not sort that array again."""
    import numpy as np

    if not len(ordered):
        return np.zeros(len(values), bool)
    found: np.ndarray = ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values
    return found
