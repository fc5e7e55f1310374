"""A byte n-gram language model with interpolated Witten-Bell smoothing, over exact or hashed counts.

    p(b | c) = (count(c b) + types(c) p(b | c')) / (count(c) + types(c))

where c' is the context c without its oldest byte, types(c) is the number of distinct bytes seen after c, and the
recursion ends at 1/256 (Witten and Bell 1991, method C; Chen and Goodman 1998, equation 18). A context that was never
seen has the probability of its shorter context.

A gram is packed big endian into a uint64, so an order is at most 8. NUL bytes precede the first byte of a document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

MAX_ORDER = 8  # bytes that fit into 64 bits
TABLES = ("counts", "totals", "types")
CHUNK_BYTES = 1 << 20  # of a document whose grams are in memory at once
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio (Knuth, multiplicative hashing)

Lookup = tuple[np.ndarray, np.ndarray, np.ndarray]  # count(c b), count(c), types(c): [grams] each


class GramCounts(Protocol):
    """Counts of the grams of 1 to `order` bytes of a training text."""

    @property
    def order(self) -> int: ...

    def look_up(self, grams: np.ndarray, length: int) -> Lookup:
        """The counts that the estimate needs for each gram c b of `length` bytes (uint64)."""
        ...


def probabilities(counts: GramCounts, grams: np.ndarray) -> np.ndarray:
    """p(last byte | the bytes before it) of each gram of `counts.order` bytes. float64 [grams], in (0, 1]."""
    p = np.full(len(grams), 1 / 256)
    for length in range(1, counts.order + 1):
        count, total, types = counts.look_up(_last(grams, length), length)
        p = np.where(total > 0, (count + types * p) / np.maximum(total + types, 1), p)
    return p


def bits(counts: GramCounts, document: bytes, chunk_bytes: int | None = None) -> float:
    """-log2 p of a document on its own, summed over `chunk_bytes` at a time (None: over the whole document)."""
    chunks = packed_grams(document, counts.order, chunk_bytes)
    return float(sum(-np.log2(probabilities(counts, grams)).sum() for grams in chunks))


def packed_grams(document: bytes, order: int, chunk_bytes: int | None = None) -> Iterator[np.ndarray]:
    """The gram that ends in each byte of a document: uint64 arrays of up to `chunk_bytes` grams."""
    padded = bytes(order - 1) + document
    step = chunk_bytes or max(len(document), 1)
    for start in range(0, len(document), step):
        stream = np.frombuffer(padded[start : start + step + order - 1], np.uint8)
        grams = np.zeros(len(stream) - order + 1, np.uint64)
        for back in range(order):
            first = order - 1 - back
            grams |= stream[first : first + len(grams)].astype(np.uint64) << np.uint64(8 * back)
        yield grams


class ExactCounts:
    """Every gram of the documents with its count, sorted for binary search. Memory grows with the text.

    Raises ValueError for an order that is not in 1 to 8.
    """

    def __init__(self, order: int, documents: Iterable[bytes]) -> None:
        self.order = _checked(order)
        grams = np.concatenate([np.empty(0, np.uint64), *(g for text in documents for g in packed_grams(text, order))])
        self.train_bytes = len(grams)
        self._levels = [_Level(_last(grams, length)) for length in range(1, order + 1)]

    def look_up(self, grams: np.ndarray, length: int) -> Lookup:
        return self._levels[length - 1].look_up(grams)


class HashedCounts:
    """Counts in hashed tables of a fixed size: memory does not grow with the text, and a lookup is one memory access.

    Grams that share a cell add up, so the estimate is approximate where the tables are full; it stays positive.
    `tables`: counts, totals and types, each uint32 [order, 2^table_bits].
    """

    def __init__(self, order: int, table_bits: int, tables: Mapping[str, np.ndarray] | None = None) -> None:
        """`tables`: those of another instance. Raises ValueError for an order outside 1 to 8, or for another shape."""
        shape = (_checked(order), 1 << table_bits)
        self.order, self._shift = order, np.uint64(64 - table_bits)
        self.tables = {name: np.zeros(shape, np.uint32) for name in TABLES} if tables is None else dict(tables)
        found = {name: (table.shape, str(table.dtype)) for name, table in self.tables.items()}
        if found != dict.fromkeys(TABLES, (shape, "uint32")):
            raise ValueError(f"tables are {found}; expected {', '.join(TABLES)} of uint32 {shape}")

    def add(self, documents: Iterable[bytes]) -> int:
        """Count the grams of documents; returns the number of bytes."""
        size = 0
        for document in documents:
            for grams in packed_grams(document, self.order, CHUNK_BYTES):
                for length in range(1, self.order + 1):
                    self._count(_last(grams, length), length)
            size += len(document)
        return size

    def look_up(self, grams: np.ndarray, length: int) -> Lookup:
        counts, totals, types = self._level(length)
        contexts = self._cells(grams >> np.uint64(8))
        total = totals[contexts].astype(np.float64)
        count = np.minimum(counts[self._cells(grams)], total)  # a shared cell may hold more than its context had
        distinct = np.maximum(types[contexts], 1).astype(np.float64)  # 0 only where a shared cell hid the first gram
        return count, total, distinct

    def _count(self, grams: np.ndarray, length: int) -> None:
        counts, totals, types = self._level(length)
        distinct, times = np.unique(grams, return_counts=True)
        cells = self._cells(distinct)
        contexts = self._cells(distinct >> np.uint64(8))
        np.add.at(types, contexts[counts[cells] == 0], np.uint32(1))
        np.add.at(counts, cells, times.astype(np.uint32))
        np.add.at(totals, contexts, times.astype(np.uint32))

    def _level(self, length: int) -> Sequence[np.ndarray]:
        return [self.tables[name][length - 1] for name in TABLES]

    def _cells(self, grams: np.ndarray) -> np.ndarray:
        mixed = (grams ^ (grams >> np.uint64(32))) * _MIX
        cells: np.ndarray = (mixed ^ (mixed >> np.uint64(29))) * _MIX >> self._shift
        return cells


class _Level:
    """Exact counts of the grams of one length."""

    def __init__(self, grams: np.ndarray) -> None:
        self._grams, self._counts = np.unique(grams, return_counts=True)
        contexts = self._grams >> np.uint64(8)
        self._contexts, first = np.unique(contexts, return_index=True)
        bounds = np.append(first, len(contexts))
        self._types = np.diff(bounds)
        self._totals = np.diff(np.append(0, np.cumsum(self._counts))[bounds])

    def look_up(self, grams: np.ndarray) -> Lookup:
        contexts = grams >> np.uint64(8)
        return (
            _find(self._grams, self._counts, grams),
            _find(self._contexts, self._totals, contexts),
            _find(self._contexts, self._types, contexts),
        )


def _checked(order: int) -> int:
    if not 1 <= order <= MAX_ORDER:
        raise ValueError(f"order is {order}; expected 1 to {MAX_ORDER}")
    return order


def _find(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """values[i] where keys[i] is the wanted key, 0 where there is none. `keys` ascend."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


def _last(grams: np.ndarray, length: int) -> np.ndarray:
    """The last `length` bytes of each gram."""
    last: np.ndarray = grams & np.uint64((1 << 8 * length) - 1)
    return last
