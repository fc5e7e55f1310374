"""What is known of every document at once: 40 bytes of each, and what is decided from them over the whole corpus.

Decisions follow from hashes of content and the ranks of sources alone, so that neither the order of reading nor the
number of readers matters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.manifest import Contamination
from stages.base import StageError

if TYPE_CHECKING:
    import numpy as np

# id: what a document is; key: what it has in common with its exact duplicates; size: bytes of its text.
SIGNATURE = [(name, ">u8") for name in ("id_high", "id_low", "key_high", "key_low", "size")]
SIGNATURE_BYTES = 40


@dataclass(frozen=True)
class Cuts:
    """Passages that are taken out of texts: bytes [start, stop) of the text of a row. Int64, by row, then by start;
    those of one row are disjoint and begin and end between characters."""

    rows: np.ndarray
    starts: np.ndarray
    stops: np.ndarray


def covered(rows: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> Cuts:
    """What passages of rows cover, in any order; those that touch or overlap as one."""
    import numpy as np

    order = np.lexsort((starts, rows))
    rows, starts, stops = rows[order], starts[order], stops[order]
    far = int(stops.max(initial=0)) + 1  # what is added for each row keeps those of different ones apart
    reach = np.maximum.accumulate(stops + rows * far)
    new = np.ones(len(rows), bool)
    new[1:] = (rows[1:] != rows[:-1]) | (starts[1:] + rows[1:] * far > reach[:-1])
    last = np.append(new[1:], True)[: len(new)]
    return Cuts(rows[new], starts[new], (reach - rows * far)[last])


def together(cuts: Sequence[Cuts]) -> Cuts:
    """What any of them covers."""
    import numpy as np

    none = np.empty(0, np.int64)
    columns = zip(*((one.rows, one.starts, one.stops) for one in (Cuts(none, none, none), *cuts)), strict=True)
    return covered(*map(np.concatenate, columns))


@dataclass(frozen=True)
class Families:
    """Documents that are like another: each with the row of the one of them that stays, and how alike the two are."""

    rows: np.ndarray  # int64; those that stay are not among them
    first: np.ndarray  # int64
    similarity: np.ndarray  # float64, 0 to 1


Values = Callable[["np.ndarray"], Sequence[str]]  # what is told of those of a ruling's rows that stand at given places


@dataclass(frozen=True)
class Ruling:
    """Documents that are dropped by one rule: rows of the index, and the values that the ledger tells of them.

    A rule may cut passages instead, and it may tell which documents are alike.
    """

    operation: str
    rule: str
    threshold: str
    rows: np.ndarray  # int64
    values: Values
    cuts: Cuts | None = None
    families: Families | None = None
    contamination: Mapping[str, Contamination] = field(default_factory=dict)  # by evaluation task


def nothing_told(places: np.ndarray) -> Sequence[str]:
    """The values of a ruling that drops nothing."""
    return []


Judge = Callable[["Index", "np.ndarray"], Ruling]  # of the index and of which rows are still kept (bool)


@dataclass(frozen=True)
class Index:
    """The documents of all shards, one after the other."""

    table: np.ndarray  # of SIGNATURE, [documents]
    rank: np.ndarray  # uint16 [documents]: of the source, 0 first
    starts: np.ndarray  # int64 [shards + 1]: the first row of each shard

    @classmethod
    def load(cls, files: Sequence[Path], ranks: Sequence[int]) -> Index:
        """The signatures of every shard, and the rank of its source. Raises StageError if a file is cut short."""
        import numpy as np

        tables = []
        for file in files:
            if file.stat().st_size % SIGNATURE_BYTES:
                raise StageError(f"{file} is cut short")
            tables.append(np.fromfile(file, dtype=SIGNATURE).astype([(name, "u8") for name, _ in SIGNATURE]))
        sizes = [len(table) for table in tables]
        return cls(
            table=np.concatenate(tables) if tables else np.empty(0, [(name, "u8") for name, _ in SIGNATURE]),
            rank=np.repeat(np.array(ranks, np.uint16), sizes),
            starts=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        )

    def __len__(self) -> int:
        return len(self.table)

    def claim(self, rows: np.ndarray) -> np.ndarray:
        """Rows in the order in which they may stay: by the rank of their source, then by id."""
        import numpy as np

        low, high = (self.table[name][rows] for name in ("id_low", "id_high"))
        ordered: np.ndarray = rows[np.lexsort((low, high, self.rank[rows]))]
        return ordered

    def ids(self, rows: np.ndarray) -> list[str]:
        """The ids of rows, as documents have them."""
        table = self.table[rows]
        return [f"{high:016x}{low:016x}" for high, low in zip(table["id_high"], table["id_low"], strict=True)]


def over_limit(limit_bytes: int) -> Judge:
    """Keeps the documents with the smallest keys, as many as fit: a sample of all sources alike."""

    def judge(index: Index, kept: np.ndarray) -> Ruling:
        import numpy as np

        rows = np.flatnonzero(kept)
        table = index.table[rows]
        order = np.lexsort((table["id_low"], table["id_high"], table["key_low"], table["key_high"]))
        over = order[np.cumsum(table["size"][order]) > np.uint64(limit_bytes)]
        sizes = table["size"][over]
        return Ruling("limit", "over", str(limit_bytes), rows[over], lambda places: list(map(str, sizes[places])))

    return judge
