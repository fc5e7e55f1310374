"""What a measure wrote of every document, in a file a shard: looked at on disk, whatever the rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base import StageError

if TYPE_CHECKING:
    import numpy as np


def mapped(files: Sequence[Path], starts: np.ndarray, kind: Any, shape: tuple[int, ...] = (-1,)) -> list[np.ndarray]:
    """The arrays of shards. `starts`: the first row of each, and the number of rows; `shape`: with -1 for documents.

    Raises StageError if a file does not hold as many documents as there are.
    """
    import numpy as np

    found = []
    for file, count in zip(files, np.diff(starts).tolist(), strict=True):
        whole = tuple(count if size < 0 else size for size in shape)
        size = int(np.prod(whole)) * np.dtype(kind).itemsize
        if file.stat().st_size != size:
            raise StageError(f"{file} holds {file.stat().st_size} bytes; of {count} documents {size} are expected")
        found.append(np.memmap(file, kind, "r", shape=whole) if size else np.empty(whole, kind))
    return found


def gathered(shards: Sequence[np.ndarray], starts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """What the arrays of shards hold of rows, in their order."""
    import numpy as np

    found = np.empty((len(rows), *shards[0].shape[1:]), shards[0].dtype)
    of = np.searchsorted(starts, rows, side="right") - 1
    for shard in np.unique(of).tolist():
        here = np.flatnonzero(of == shard)
        found[here] = shards[shard][rows[here] - starts[shard]]
    return found


def among(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Which values (bool) are among the ordered ones. For many of these: np.isin would sort them every time."""
    import numpy as np

    if not len(ordered):
        return np.zeros(len(values), bool)
    found: np.ndarray = ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values
    return found
