"""The kept texts of all shards as one address space of bytes on disk.

A passage has an address, by which it is read, and a position: its address if the texts were sorted by precedence. Of
two equal passages the one with the smaller position is kept.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from stages.corpus.ingestion.document_index import DocumentIndex

if TYPE_CHECKING:
    import numpy as np

CHUNK_BYTES = 1 << 16  # of text at a time, or one text: fits into a processor's cache
OPEN_FILES = 256


class Passages:
    """The kept texts of all shards."""

    def __init__(self, files: list[Path], ends: list[np.ndarray], index: DocumentIndex, kept: np.ndarray) -> None:
        """`files`: the concatenated texts of each shard. `ends`: the end of each text in its file (int64)."""
        import numpy as np

        self._sizes = np.concatenate([np.empty(0, np.int64), *(np.diff(one, prepend=0) for one in ends)])
        self._begins = np.cumsum(self._sizes) - self._sizes  # the address of each row
        self._ordered = index.by_precedence(np.flatnonzero(kept))  # rows by precedence, the order of positions
        self._bases = np.concatenate([[0], np.cumsum(self._sizes[self._ordered])]).astype(np.int64)
        self._positions = np.zeros(len(self._sizes), np.int64)  # of each row
        self._positions[self._ordered] = self._bases[:-1]
        self._kept = np.flatnonzero(kept & (self._sizes > 0))
        self._texts = _Texts(files, [int(one[-1]) if len(one) else 0 for one in ends])

    def chunks(self) -> Iterator[Chunk]:
        """All texts by ascending address, in chunks."""
        import numpy as np

        groups = np.cumsum(self._sizes[self._kept]) // CHUNK_BYTES
        edges = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(self._kept)]
        for start, stop in pairwise(edges):
            if start < stop:
                rows = self._kept[start:stop]
                yield Chunk(self._texts, self._begins[rows], self._sizes[rows], self._positions[rows])

    def rows(self, addresses: np.ndarray) -> np.ndarray:
        """The row of the index of the text at each address."""
        import numpy as np

        found: np.ndarray = np.searchsorted(self._begins, addresses, side="right") - 1
        return found

    def begins(self, rows: np.ndarray) -> np.ndarray:
        """The first address of each row."""
        found: np.ndarray = self._begins[rows]
        return found

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        """The bytes of the text of each row."""
        found: np.ndarray = self._sizes[rows]
        return found

    def addresses(self, positions: np.ndarray) -> np.ndarray:
        import numpy as np

        places = np.searchsorted(self._bases, positions, side="right") - 1
        found: np.ndarray = self._begins[self._ordered[places]] + positions - self._bases[places]
        return found

    def positions(self, addresses: np.ndarray) -> np.ndarray:
        rows = self.rows(addresses)
        found: np.ndarray = self._positions[rows] + addresses - self._begins[rows]
        return found

    def bytes_of(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The bytes of passages, concatenated (uint8). No passage may reach into another text."""
        return self._texts.gather(starts, lengths)


@dataclass(frozen=True)
class Chunk:
    """Several whole texts. A place is an offset into their bytes, `data`, which are read on first use."""

    texts: _Texts
    addresses: np.ndarray  # int64 [texts]: of the first byte of each
    sizes: np.ndarray  # int64 [texts]
    positions: np.ndarray  # int64 [texts]

    @cached_property
    def data(self) -> np.ndarray:
        import numpy as np

        stops = self.addresses + self.sizes
        apart = np.flatnonzero(self.addresses[1:] != stops[:-1]) + 1  # other texts are between these
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
        """Convert places to addresses or positions. `firsts`: those of the first byte of each text."""
        import numpy as np

        found: np.ndarray = places + (firsts - self.ends + self.sizes)[np.searchsorted(self.ends, places, side="right")]
        return found

    def places(self, addresses: np.ndarray) -> np.ndarray:
        import numpy as np

        text = np.searchsorted(self.addresses, addresses, side="right") - 1
        found: np.ndarray = addresses + (self.ends - self.sizes - self.addresses)[text]
        return found


class _Texts:
    """Files as one address space of bytes."""

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
        """The bytes of runs, each inside one file, concatenated."""
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
            mapped.madvise(mmap.MADV_DONTNEED)  # keeps the pages in the system's cache, and out of this process
        return found

    def _new_map(self, file: int) -> mmap.mmap:
        with self._files[file].open("rb") as opened:
            mapped = mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)
        mapped.madvise(mmap.MADV_RANDOM)
        return mapped
