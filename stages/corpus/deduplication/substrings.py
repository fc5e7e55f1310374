"""Repeated passages: what stood before, word for word, is taken out (Lee et al. 2022, arXiv 2107.06499).

A suffix array sorted by no more than the first `min_bytes` of each suffix: positions in the order of the hashes of what
begins there, made in as many parts as the memory allows, each of the hashes that share their first bits. Equal hashes
are compared byte by byte before anything is cut. Of equal passages the first stays: that of the document with the
first claim, and in it that with the smallest offset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from stages.corpus.deduplication.rule import Rule
from stages.corpus.drafts import Drafts, Measure
from stages.corpus.index import Cuts, Index, Judge, Ruling

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

TEXT, ENDS = "text.bin", "ends.bin"  # all texts end to end, and where each ends (int64)
POSITION_BYTES = 56  # that sorting takes for each position
CHUNK_BYTES = 1 << 20  # of text that is hashed at a time
MARKS = "marks.bin"
COMPARED = 1 << 16  # passages that are compared at a time


class Bytes(Measure):
    """The texts of a shard as one run of bytes, to be looked at anywhere."""

    def measure(self, drafts: Iterator[pa.RecordBatch], folder: Path) -> Mapping[str, Any]:
        import numpy as np

        ends = [np.empty(0, np.int64)]
        size = 0
        with (folder / TEXT).open("wb") as file:
            for batch in drafts:
                parts = [text.encode() for text in batch["text"].to_pylist()]
                ends.append(np.cumsum([len(part) for part in parts], dtype=np.int64) + size)
                size += sum(map(len, parts))
                file.write(b"".join(parts))
        np.concatenate(ends).tofile(folder / ENDS)
        return {"bytes": size}


class RepeatedSubstrings(Rule):
    """Passages of `min_bytes` or more that stood in an earlier document, or earlier in the same: they are taken out."""

    rule: Literal["substrings"] = "substrings"
    min_bytes: int = Field(default=50, ge=8, le=1 << 16)

    def judge(self, drafts: Drafts) -> Judge:
        folders, _ = drafts.measured(self.rule, Bytes())

        def judge(index: Index, kept: np.ndarray) -> Ruling:
            import numpy as np

            passages = Passages(folders, index, kept)
            drafts.folder.mkdir(parents=True, exist_ok=True)
            file = drafts.folder / MARKS
            marks = np.memmap(file, bool, "w+", shape=(max(len(passages), 1),))
            try:
                mark_repeated(passages, self.min_bytes, drafts.memory_bytes, marks)
                cuts = cuts_of(passages, marks, self.min_bytes)
            finally:
                file.unlink()
            return Ruling("deduplicate", self.rule, str(self.min_bytes), np.empty(0, np.int64), [], cuts)

        return judge


class Passages:
    """The texts that are still kept as one run of bytes, in the order of their claim; on disk.

    A position is a place in that run: of two positions the smaller is the one that stays.
    """

    def __init__(self, folders: list[Path], index: Index, kept: np.ndarray) -> None:
        import numpy as np

        self._starts = index.starts
        self._texts, self._begins, sizes = [], np.zeros(len(index), np.int64), np.zeros(len(index), np.int64)
        for shard, folder in enumerate(folders):
            rows = slice(index.starts[shard], index.starts[shard + 1])
            ends = np.fromfile(folder / ENDS, np.int64)
            sizes[rows] = np.diff(ends, prepend=0)
            self._begins[rows] = ends - sizes[rows]
            empty = np.empty(0, np.uint8)
            self._texts.append(np.memmap(folder / TEXT, np.uint8, "r") if len(ends) and ends[-1] else empty)
        self.rows = index.claim(np.flatnonzero(kept))  # of the index, in this order
        self.bases = np.concatenate([[0], np.cumsum(sizes[self.rows])]).astype(np.int64)  # the first position of each
        self._places = np.full(len(index), -1, np.int64)  # of each row in this order
        self._places[self.rows] = np.arange(len(self.rows))

    def __len__(self) -> int:
        return int(self.bases[-1])

    def chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Texts, shard by shard, some at a time: their bytes end to end, where each ends, and its first position."""
        import numpy as np

        for shard, text in enumerate(self._texts):
            rows = np.arange(self._starts[shard], self._starts[shard + 1])
            rows = rows[self._places[rows] >= 0]
            sizes = self._sizes(rows)
            for group in np.split(rows, np.flatnonzero(np.diff(np.cumsum(sizes) // CHUNK_BYTES)) + 1):
                if len(group):
                    parts = [
                        text[self._begins[row] :][:size] for row, size in zip(group, self._sizes(group), strict=True)
                    ]
                    yield np.concatenate(parts), np.cumsum(self._sizes(group)), self.bases[self._places[group]]

    def at(self, positions: np.ndarray, length: int) -> np.ndarray:
        """The bytes of passages, [positions, length]."""
        import numpy as np

        rows = self.rows[np.searchsorted(self.bases, positions, side="right") - 1]
        places = self._begins[rows] + positions - self.bases[self._places[rows]]
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        found = np.empty((len(positions), length), np.uint8)
        for shard in np.unique(shards).tolist():
            here = np.flatnonzero(shards == shard)
            found[here] = np.lib.stride_tricks.sliding_window_view(self._texts[shard], length)[places[here]]
        return found

    def text(self, place: int) -> np.ndarray:
        """The bytes of the text at a place in the order of claim."""
        import numpy as np

        row = int(self.rows[place])
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._texts[shard][self._begins[row] :][: int(self.bases[place + 1] - self.bases[place])]

    def _sizes(self, rows: np.ndarray) -> np.ndarray:
        places = self._places[rows]
        sizes: np.ndarray = self.bases[places + 1] - self.bases[places]
        return sizes


def mark_repeated(passages: Passages, length: int, memory_bytes: int, marks: np.ndarray) -> None:
    """Set `marks` (bool, of each position) where a passage of `length` bytes begins that also begins before."""
    import numpy as np

    bits = max((len(passages) * POSITION_BYTES // memory_bytes).bit_length(), 1)
    for part in range(1 << bits):
        hashes, positions = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for chunk_hashes, chunk_positions in _beginnings(passages, length):
            chosen = chunk_hashes >> np.uint64(64 - bits) == part
            hashes.append(chunk_hashes[chosen])
            positions.append(chunk_positions[chosen])
        every, where = np.concatenate(hashes), np.concatenate(positions)
        order = np.lexsort((where, every))
        every, where = every[order], where[order]
        again = np.zeros(len(every), bool)
        again[1:] = every[1:] == every[:-1]
        first = where[np.maximum.accumulate(np.where(again, 0, np.arange(len(every))))][again]
        repeats = where[again]
        for start in range(0, len(repeats), COMPARED):
            piece = slice(start, start + COMPARED)
            same = (passages.at(repeats[piece], length) == passages.at(first[piece], length)).all(axis=1)
            marks[repeats[piece][same]] = True


def _beginnings(passages: Passages, length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The hash of every passage of `length` bytes within a text, and its position."""
    import numpy as np

    from stages.corpus.measures.shingles import windows

    for data, ends, bases in passages.chunks():
        hashes = windows(data, length)
        starts = ends - np.diff(ends, prepend=0)
        text = np.searchsorted(ends, np.arange(len(hashes)), side="right")
        places = np.arange(len(hashes))
        within = places + length <= ends[text]
        yield hashes[within], (bases[text] + places - starts[text])[within]


def cuts_of(passages: Passages, marks: np.ndarray, length: int) -> Cuts:
    """What the marked passages cover, as far as it is whole characters."""
    import numpy as np

    found: list[tuple[int, int, int]] = []
    for place, row in enumerate(passages.rows.tolist()):
        marked = np.flatnonzero(marks[passages.bases[place] : passages.bases[place + 1]])
        if len(marked):
            data = passages.text(place)
            breaks = np.flatnonzero(np.diff(marked) > length)
            starts, stops = marked[np.append(0, breaks + 1)], marked[np.append(breaks, len(marked) - 1)] + length
            for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
                while start < stop and data[start] & 0xC0 == 0x80:
                    start += 1
                while stop > start and stop < len(data) and data[stop] & 0xC0 == 0x80:
                    stop -= 1
                if start < stop:
                    found.append((row, start, stop))
    rows, starts, stops = np.array(sorted(found), np.int64).reshape(-1, 3).T
    return Cuts(rows, starts, stops)
