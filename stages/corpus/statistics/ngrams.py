"""A byte n-gram model in hashed tables of a fixed size: fast enough to judge every document of a corpus.

The same interpolated Witten-Bell estimate as stages/evaluation/ngram.py, but counts are looked up by a hash of the
gram, not by search: memory does not grow with the text, and one lookup costs one memory access. Grams that share a
cell add up, which makes the estimate approximate where tables are full; it stays a positive number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

TABLES = ("counts", "totals", "types")
MAX_ORDER = 8  # a gram is packed into 64 bits
CHUNK_BYTES = 1 << 20  # of text that is looked at at once: bounds the memory of a judgement
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio (Knuth, multiplicative hashing)


class HashedNgrams:
    """Counts of grams of 1 to `order` bytes; for each context what followed it, in all and how many different bytes."""

    def __init__(self, order: int, bits: int, tables: Mapping[str, np.ndarray] | None = None):
        """`tables`: what `tables` of another model was. Raises ValueError if it is not [order, 2^bits] of uint32."""
        if not 1 <= order <= MAX_ORDER:
            raise ValueError(f"order is {order}; expected 1 to {MAX_ORDER}")
        shape = (order, 1 << bits)
        self.order, self._shift = order, np.uint64(64 - bits)
        self.tables = {name: np.zeros(shape, np.uint32) for name in TABLES} if tables is None else dict(tables)
        found = {name: (table.shape, str(table.dtype)) for name, table in self.tables.items()}
        if found != dict.fromkeys(TABLES, (shape, "uint32")):
            raise ValueError(f"tables are {found}; expected {', '.join(TABLES)} of uint32 {shape}")

    def add(self, documents: Iterable[bytes]) -> int:
        """Count the grams of documents; returns their bytes."""
        size = 0
        for document in documents:
            for grams in _chunks(document, self.order):
                for length in range(1, self.order + 1):
                    self._count(_last(grams, length), length)
            size += len(document)
        return size

    def bits(self, document: bytes) -> float:
        """-log2 p of a document on its own, from its first byte to its last."""
        return float(sum(-np.log2(self._probabilities(grams)).sum() for grams in _chunks(document, self.order)))

    def _count(self, grams: np.ndarray, length: int) -> None:
        counts, totals, types = (self.tables[name][length - 1] for name in TABLES)
        different, times = np.unique(grams, return_counts=True)
        cells = self._cells(different)
        contexts = self._cells(different >> np.uint64(8))
        np.add.at(types, contexts[counts[cells] == 0], np.uint32(1))
        np.add.at(counts, cells, times.astype(np.uint32))
        np.add.at(totals, contexts, times.astype(np.uint32))

    def _probabilities(self, grams: np.ndarray) -> np.ndarray:
        p = np.full(len(grams), 1 / 256)
        for length in range(1, self.order + 1):
            counts, totals, types = (self.tables[name][length - 1] for name in TABLES)
            gram = _last(grams, length)
            contexts = self._cells(gram >> np.uint64(8))
            total = totals[contexts].astype(np.float64)
            different = np.maximum(types[contexts], 1).astype(np.float64)  # 0 only where shared cells hid the first
            count = np.minimum(counts[self._cells(gram)], total)  # cells are shared: never more than there was in all
            p = np.where(total > 0, (count + different * p) / np.maximum(total + different, 1), p)
        return p

    def _cells(self, grams: np.ndarray) -> np.ndarray:
        mixed = (grams ^ (grams >> np.uint64(32))) * _MIX
        return (mixed ^ (mixed >> np.uint64(29))) * _MIX >> self._shift


def perplexity(model: HashedNgrams, text: str) -> float:
    """2^(bits / words): per word between white space, with one more for the end of each line, as KenLM counts.

    In scripts without spaces between words every character is one.
    """
    words = len(text.split()) + text.count("\n") + 1
    words += 0 if text.isascii() else len(_UNSPACED.findall(text))
    bits = model.bits(text.encode("utf-8", "surrogatepass"))
    return float(2.0 ** min(bits / words, 1000.0))


def _last(grams: np.ndarray, length: int) -> np.ndarray:
    """The last `length` bytes of each gram."""
    return grams & np.uint64((1 << 8 * length) - 1)


def _chunks(document: bytes, order: int) -> Iterable[np.ndarray]:
    """The gram that ends in each byte of a document, NUL bytes before the first, a bounded number at a time."""
    padded = bytes(order - 1) + document
    for start in range(0, len(document), CHUNK_BYTES):
        stream = np.frombuffer(padded[start : start + CHUNK_BYTES + order - 1], np.uint8)
        grams = np.zeros(len(stream) - order + 1, np.uint64)
        for back in range(order):
            first = order - 1 - back
            grams |= stream[first : first + len(grams)].astype(np.uint64) << np.uint64(8 * back)
        yield grams
