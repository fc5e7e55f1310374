"""Groups records by key in bounded memory: sorted runs are spilled to disk, then read back one range of keys at a time.

This is an external sort without the final merge: questions about a table of hashes (which keys repeat, which record is
the first of a key) are answered from all records of one range of keys. A record is a key and a value of 64 bits each.
Nothing is written as long as all records fit into the given memory.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from stages.corpus.ingestion.completion_markers import PARTIAL

if TYPE_CHECKING:
    import numpy as np

RECORD_BYTES = 64  # memory for a record while it is sorted or looked up
FEWEST_RECORDS = 1 << 16  # in memory, even if less memory is given: fewer would make many short runs
MOST_RECORDS = 1 << 21  # in memory, even if more is given: beyond the processor's cache, sorting is slow
LAST_KEY = (1 << 64) - 1
SAMPLES = 64  # keys of a run that are kept in memory for each part of it

Piece = tuple["np.ndarray", "np.ndarray"]  # keys (uint64), ascending, and their values (int64)


@dataclass(frozen=True)
class _Run:
    """A file of records: all keys, ascending, then all values. `samples`: every `step`-th key."""

    file: Path
    count: int
    samples: np.ndarray
    step: int

    def position_of(self, key: int) -> int:
        """The number of keys that are smaller than `key`."""
        import numpy as np

        sample = int(np.searchsorted(self.samples, np.uint64(key)))
        if not sample:
            return 0
        start = (sample - 1) * self.step
        keys = np.fromfile(self.file, np.uint64, min(self.step, self.count - start), offset=8 * start)
        return start + int(np.searchsorted(keys, np.uint64(key)))

    def read(self, start: int, stop: int) -> Piece:
        import numpy as np

        keys = np.fromfile(self.file, np.uint64, stop - start, offset=8 * start)
        return keys, np.fromfile(self.file, np.int64, stop - start, offset=8 * (self.count + start))


class Spill:
    """Collects records and gives them back by key. A context manager: on exit its files are removed."""

    def __init__(self, folder: Path, memory_bytes: int) -> None:
        """`folder`: where a temporary folder is made if records are written; `remove_partial_folders` removes it."""
        self._folder, self._own = folder, ""
        self._capacity = max(min(memory_bytes // RECORD_BYTES, MOST_RECORDS), FEWEST_RECORDS)
        self._held: list[Piece] = []
        self._records = 0  # in memory
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return self._records + sum(run.count for run in self._runs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Remove all records."""
        self._held, self._records, self._runs = [], 0, []
        if self._own:
            shutil.rmtree(self._own, ignore_errors=True)
            self._own = ""

    def add(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Add records in any order."""
        import numpy as np

        for start in range(0, len(keys), self._capacity):
            piece = keys[start : start + self._capacity], values[start : start + self._capacity]
            if self._records + len(piece[0]) > self._capacity:
                self._write()
            self._held.append((piece[0].astype(np.uint64), piece[1].astype(np.int64)))
            self._records += len(piece[0])

    def parts(self) -> Iterator[Callable[[], Iterator[Piece]]]:
        """All records by ascending keys, in parts. The records of a key are in one part, in the order of addition.

        A part is a function that gives its pieces, and may be called repeatedly. It has one piece, or several if all
        its records have the same key and do not fit into memory. No record may be added afterwards.
        """
        if not self._runs:
            yield self._all_held
            return
        self._write()
        starts = [0] * len(self._runs)
        for cut, alone in self._cuts():
            stops = [run.count if cut is None else run.position_of(cut) for run in self._runs]
            spans = [span for span in zip(self._runs, starts, stops, strict=True) if span[1] < span[2]]
            yield partial(self._read, spans, alone)
            starts = stops

    def _all_held(self) -> Iterator[Piece]:
        if self._records:
            self._held = [_sorted(self._held)]
            yield self._held[0]

    def _write(self) -> None:
        """Write the records in memory as a run."""
        if not self._records:
            return
        if not self._own:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._own = tempfile.mkdtemp(prefix=f"spill{PARTIAL}", dir=self._folder)
        keys, values = _sorted(self._held)
        file = Path(self._own) / f"{len(self._runs):06d}.bin"
        with file.open("wb") as out:
            keys.tofile(out)
            values.tofile(out)
        self._runs.append(_Run(file, len(keys), keys[:: self._step].copy(), self._step))
        self._held, self._records = [], 0

    @property
    def _step(self) -> int:
        return max(self._capacity // SAMPLES, 1)

    def _cuts(self) -> list[tuple[int | None, bool]]:
        """The first key after each part (None: it is the last one), and whether the part has a single frequent key."""
        import numpy as np

        samples = np.sort(np.concatenate([run.samples for run in self._runs]))
        every = max(SAMPLES - len(self._runs), SAMPLES // 2)  # between two samples a run may have up to one step more
        keys, times = np.unique(samples[every::every], return_counts=True)
        cuts: list[tuple[int | None, bool]] = []
        for key, many in zip(keys.tolist(), (times > 1).tolist(), strict=True):
            cuts.append((key, False))
            if many:
                cuts.append((key + 1 if key < LAST_KEY else None, True))
        return cuts if cuts and cuts[-1][0] is None else [*cuts, (None, False)]

    def _read(self, spans: list[tuple[_Run, int, int]], alone: bool) -> Iterator[Piece]:
        if alone:
            for run, start, stop in spans:
                for position in range(start, stop, self._capacity):
                    yield run.read(position, min(position + self._capacity, stop))
        elif spans:
            yield _sorted([run.read(start, stop) for run, start, stop in spans])


def repeats(spill: Spill) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """All records of a key except the first one, which has the smallest value.

    In batches: their keys, their values, and for each the value of the first record with the same key.
    """
    import numpy as np

    for pieces in spill.parts():
        least = (np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, bool))
        for keys, values in pieces():
            least = _least(least, _least_of(keys, values, np.zeros(len(keys), bool)))
        keys, first, several = least
        keys, first = keys[several], first[several]
        if not len(keys):
            continue
        for wanted, values in pieces():
            positions = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            again = (keys[positions] == wanted) & (first[positions] != values)
            if again.any():
                yield wanted[again], values[again], first[positions[again]]


def frequent(spill: Spill, times: int) -> Iterator[np.ndarray]:
    """The keys of at least `times` records, ascending, in batches."""
    import numpy as np

    for pieces in spill.parts():
        keys, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
        for piece, _ in pieces():  # several pieces have the same single key
            found, here = np.unique(piece, return_counts=True)
            keys, counts = (found, here) if not len(keys) else (keys, counts + here)
        yield keys[counts >= times]


def _sorted(pieces: list[Piece]) -> Piece:
    """All records of some pieces sorted by key; the records of a key keep their order.

    Twice as fast as np.argsort: numpy sorts plain integers with vector instructions, so the position of each record
    replaces the low bits of its key. Keys that differ only in these bits are rare among hashes and sorted afterwards.
    """
    import numpy as np

    keys, values = pieces[0] if len(pieces) == 1 else map(np.concatenate, zip(*pieces, strict=True))
    if not len(keys):
        return keys, values
    free = 64 - int(keys.max()).bit_length()  # high bits that no key uses
    positions = np.uint64((1 << len(keys).bit_length()) - 1)
    packed = keys << np.uint64(min(free, 63))
    packed &= ~positions
    packed |= np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    order = (packed & positions).astype(np.int64)
    ordered = np.sort(keys)
    alike = (packed[1:] ^ packed[:-1]) <= positions  # equal in all bits except those of positions
    wrong = np.flatnonzero(alike & (ordered[1:] != ordered[:-1]))
    if len(wrong):
        edges = np.concatenate([[0], np.flatnonzero(~alike) + 1, [len(keys)]])
        for run in np.unique(np.searchsorted(edges, wrong, side="right")).tolist():
            here = order[edges[run - 1] : edges[run]]
            here[:] = here[np.argsort(keys[here], kind="stable")]
    return ordered, values[order]


# Distinct keys, the smallest value of each, and whether it has more than one record.
Least = tuple["np.ndarray", "np.ndarray", "np.ndarray"]


def _least_of(keys: np.ndarray, values: np.ndarray, several: np.ndarray) -> Least:
    """Summarise records that are sorted by key."""
    import numpy as np

    if not len(keys):
        return keys, values, several
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    counts = np.diff(np.append(starts, len(keys)))
    return keys[starts], np.minimum.reduceat(values, starts), (counts > 1) | np.logical_or.reduceat(several, starts)


def _least(one: Least, other: Least) -> Least:
    import numpy as np

    if not len(one[0]):
        return other
    keys, values, several = (np.concatenate(columns) for columns in zip(one, other, strict=True))
    order = np.argsort(keys)
    return _least_of(keys[order], values[order], several[order])
