"""Which documents stay, and in which split: decided over the whole corpus from 40 bytes a document.

Everything follows from hashes of content, so that neither the order of reading nor the number of readers matters:
of duplicates the smallest id stays; a size cap keeps the documents with the smallest keys, which is a sample of all
sources alike; another part of the key decides between training and validation.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_ROW = struct.Struct(">16s16sQ")


class Verdict(IntEnum):
    """What becomes of a document."""

    TRAIN = 0
    VALIDATION = 1
    DUPLICATE = 2
    OVER_LIMIT = 3


class Index:
    """The documents that passed the filters: id, key (hash of the normalised text) and size of each."""

    def __init__(self) -> None:
        self._rows = bytearray()

    def __len__(self) -> int:
        return len(self._rows) // _ROW.size

    def add(self, id_: bytes, key: bytes, size_bytes: int) -> None:
        """`id_` and `key`: 16 bytes each."""
        self._rows += _ROW.pack(id_, key, size_bytes)

    def verdicts(self, limit_bytes: int | None, validation_fraction: float) -> np.ndarray:
        """The verdict on every document in the order of ids (of equal ids: in the order they were added)."""
        import numpy as np

        fields = [(name, ">u8") for name in ("id_high", "id_low", "key_high", "key_low", "size")]
        table = np.frombuffer(bytes(self._rows), dtype=fields)
        id_high, id_low, key_high, key_low = (table[name].astype(np.uint64) for name, _ in fields[:4])
        by_key = np.lexsort((id_low, id_high, key_low, key_high))
        verdicts = np.full(len(table), Verdict.TRAIN, np.uint8)
        verdicts[key_low < np.uint64(int(validation_fraction * 2.0**64))] = Verdict.VALIDATION

        high, low = key_high[by_key], key_low[by_key]
        repeated = np.zeros(len(table), bool)
        repeated[1:] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
        verdicts[by_key[repeated]] = Verdict.DUPLICATE
        if limit_bytes is not None:
            first = by_key[~repeated]
            over = np.cumsum(table["size"][first].astype(np.uint64)) > np.uint64(limit_bytes)
            verdicts[first[over]] = Verdict.OVER_LIMIT
        return verdicts[np.lexsort((id_low, id_high))]
