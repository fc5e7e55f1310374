"""The document index: 40 bytes for every document that passed the operations, in memory for the whole corpus.

Decisions over the corpus follow from these hashes of content and from the ranks of sources alone, so neither the order
of reading nor the number of workers changes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.base import StageError

if TYPE_CHECKING:
    import numpy as np

# id: identifies the document; key: shared by exact duplicates; size: bytes of the text.
SIGNATURE = [(name, ">u8") for name in ("id_high", "id_low", "key_high", "key_low", "size")]
SIGNATURE_BYTES = 40


@dataclass(frozen=True)
class DocumentIndex:
    """The documents of all shards, one shard after the other. A row is the position of a document in this order."""

    table: np.ndarray  # of SIGNATURE, [documents]
    rank: np.ndarray  # uint16 [documents]: the rank of the source; 0 has the highest precedence
    starts: np.ndarray  # int64 [shards + 1]: the first row of each shard

    @classmethod
    def load(cls, files: Sequence[Path], ranks: Sequence[int]) -> DocumentIndex:
        """Load the signatures of each shard, with the rank of its source. Raises StageError if a file is truncated."""
        import numpy as np

        tables = []
        for file in files:
            if file.stat().st_size % SIGNATURE_BYTES:
                raise StageError(f"{file} is truncated: its size is not a multiple of {SIGNATURE_BYTES} bytes")
            tables.append(np.fromfile(file, dtype=SIGNATURE).astype([(name, "u8") for name, _ in SIGNATURE]))
        sizes = [len(table) for table in tables]
        return cls(
            table=np.concatenate(tables) if tables else np.empty(0, [(name, "u8") for name, _ in SIGNATURE]),
            rank=np.repeat(np.array(ranks, np.uint16), sizes),
            starts=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        )

    def __len__(self) -> int:
        return len(self.table)

    def by_precedence(self, rows: np.ndarray) -> np.ndarray:
        """The given rows by the rank of their source, then by id: of duplicates, the first one is kept."""
        import numpy as np

        low, high = (self.table[name][rows] for name in ("id_low", "id_high"))
        ordered: np.ndarray = rows[np.lexsort((low, high, self.rank[rows]))]
        return ordered

    def ids(self, rows: np.ndarray) -> list[str]:
        """The ids of the given rows, as written in the corpus: 32 hexadecimal digits."""
        table = self.table[rows]
        return [f"{high:016x}{low:016x}" for high, low in zip(table["id_high"], table["id_low"], strict=True)]
