"""The texts that are still kept as one run of bytes on disk, and where in it a passage of some length comes again.

A passage has an address: where it lies, by which it is read; and a position: its place if texts stood in the order of
their claim. Of two equal passages the one of the smaller position stays.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from stages.corpus.ingestion.document_index import Index

if TYPE_CHECKING:
    import numpy as np

CHUNK_BYTES = 1 << 16  # of text at a time, or one text: as many as the cache of a processor holds well
OPEN_FILES = 256


class Passages:
    """The kept texts of all shards."""

    def __init__(self, files: list[Path], ends: list[np.ndarray], index: Index, kept: np.ndarray) -> None:
        """`files`: of each shard its texts, end to end. `ends`: where each of these ends in it (int64)."""
        import numpy as np

        self._sizes = np.concatenate([np.empty(0, np.int64), *(np.diff(one, prepend=0) for one in ends)])
        self._begins = np.cumsum(self._sizes) - self._sizes  # the address of each row
        self._claim = index.claim(np.flatnonzero(kept))  # rows in the order of positions
        self._bases = np.concatenate([[0], np.cumsum(self._sizes[self._claim])]).astype(np.int64)
        self._positions = np.zeros(len(self._sizes), np.int64)  # of each row
        self._positions[self._claim] = self._bases[:-1]
        self._kept = np.flatnonzero(kept & (self._sizes > 0))
        self._texts = _Texts(files, [int(one[-1]) if len(one) else 0 for one in ends])

    def chunks(self) -> Iterator[Chunk]:
        """All texts by ascending addresses, some at a time."""
        import numpy as np

        groups = np.cumsum(self._sizes[self._kept]) // CHUNK_BYTES
        edges = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(self._kept)]
        for start, stop in pairwise(edges):
            if start < stop:
                rows = self._kept[start:stop]
                yield Chunk(self._texts, self._begins[rows], self._sizes[rows], self._positions[rows])

    def rows(self, addresses: np.ndarray) -> np.ndarray:
        """The row of the index that each address is in."""
        import numpy as np

        found: np.ndarray = np.searchsorted(self._begins, addresses, side="right") - 1
        return found

    def begins(self, rows: np.ndarray) -> np.ndarray:
        """The first address of rows."""
        found: np.ndarray = self._begins[rows]
        return found

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        """The bytes of rows' texts."""
        found: np.ndarray = self._sizes[rows]
        return found

    def addresses(self, positions: np.ndarray) -> np.ndarray:
        import numpy as np

        places = np.searchsorted(self._bases, positions, side="right") - 1
        found: np.ndarray = self._begins[self._claim[places]] + positions - self._bases[places]
        return found

    def positions(self, addresses: np.ndarray) -> np.ndarray:
        rows = self.rows(addresses)
        found: np.ndarray = self._positions[rows] + addresses - self._begins[rows]
        return found

    def bytes_of(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The bytes from addresses on, end to end (uint8). None reaches into another text."""
        return self._texts.gather(starts, lengths)


@dataclass(frozen=True)
class Chunk:
    """Some whole texts, one after the other. Places are in their bytes, `data`, which are read when asked for."""

    texts: _Texts
    addresses: np.ndarray  # int64 [texts]: of the first byte of each
    sizes: np.ndarray  # int64 [texts]
    positions: np.ndarray  # int64 [texts]

    @cached_property
    def data(self) -> np.ndarray:
        import numpy as np

        stops = self.addresses + self.sizes
        apart = np.flatnonzero(self.addresses[1:] != stops[:-1]) + 1  # others lie between
        spans = zip(
            self.addresses[np.append(0, apart)].tolist(),
            stops[np.append(apart - 1, len(stops) - 1)].tolist(),
            strict=True,
        )
        return np.concatenate([self.texts.read(start, stop) for start, stop in spans])

    @cached_property
    def ends(self) -> np.ndarray:
        import numpy as np

        ends: np.ndarray = np.cumsum(self.sizes)
        return ends

    @property
    def last(self) -> int:
        """The address after the last byte."""
        return int(self.addresses[-1] + self.sizes[-1])

    def moved(self, places: np.ndarray, firsts: np.ndarray) -> np.ndarray:
        """Places as what `firsts` tells of the first byte of each text: `addresses` or `positions`."""
        import numpy as np

        found: np.ndarray = places + (firsts - self.ends + self.sizes)[np.searchsorted(self.ends, places, side="right")]
        return found

    def places(self, addresses: np.ndarray) -> np.ndarray:
        import numpy as np

        text = np.searchsorted(self.addresses, addresses, side="right") - 1
        found: np.ndarray = addresses + (self.ends - self.sizes - self.addresses)[text]
        return found


class _Texts:
    """Files as one run of bytes. Addresses are places in it."""

    def __init__(self, files: list[Path], sizes: list[int]) -> None:
        import numpy as np

        self._files = files
        self._bases = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._map = lru_cache(OPEN_FILES)(self._new_map)

    def read(self, start: int, stop: int) -> np.ndarray:
        """The bytes [start, stop)."""
        import numpy as np

        found = []
        file = int(np.searchsorted(self._bases, start, side="right")) - 1
        while start < stop:
            base, end = self._bases[file : file + 2].tolist()
            until = min(stop, end)
            if start < until:
                found.append(np.fromfile(self._files[file], np.uint8, until - start, offset=start - base))
                start = until
            file += 1
        return np.concatenate([np.empty(0, np.uint8), *found])

    def gather(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Runs of bytes, each within a file, end to end."""
        import numpy as np

        ends = np.cumsum(lengths)
        found = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
        files = np.searchsorted(self._bases, starts, side="right") - 1
        for file in np.unique(files).tolist():
            here = slice(None) if (files == file).all() else files == file
            length = lengths[here]
            steps = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
            where = np.repeat(starts[here] - self._bases[file], length) + steps
            mapped = self._map(file)
            found[np.repeat((ends - lengths)[here], length) + steps] = np.frombuffer(mapped, np.uint8)[where]
            mapped.madvise(mmap.MADV_DONTNEED)  # the pages stay in the system's cache, and out of our memory
        return found

    def _new_map(self, file: int) -> mmap.mmap:
        with self._files[file].open("rb") as opened:
            mapped = mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)
        mapped.madvise(mmap.MADV_RANDOM)
        return mapped
