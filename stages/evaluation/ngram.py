"""A byte-level n-gram model with interpolated Witten-Bell smoothing: the baseline that knows the training text.

    p(b | c) = (count(c b) + types(c) p(b | c')) / (count(c) + types(c))

where c' is the context c without its oldest byte, types(c) the number of different bytes seen after c, and the last
resort is 1/256 (Witten and Bell 1991, method C; Chen and Goodman 1998, equation 18). An unseen context passes p on as
it is. Documents end with a NUL byte, which no text of a corpus holds, so that a document's end costs bits too, as it
does for the language model.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

MAX_ORDER = 8  # a gram is packed into 64 bits, so counts are exact
END = b"\0"


class NgramModel:
    """Counts of all grams of 1 to `order` bytes of the training documents, sorted for binary search."""

    def __init__(self, order: int, documents: Iterable[bytes]) -> None:
        if not 1 <= order <= MAX_ORDER:
            raise ValueError(f"order is {order}; expected 1 to {MAX_ORDER}")
        self.order = order
        grams, self.train_bytes = _grams(order, [document + END for document in documents])
        self._levels = [_Level(_last(grams, length)) for length in range(1, order + 1)]

    def probabilities(self, grams: np.ndarray) -> np.ndarray:
        """p(last byte | those before it) of grams of `order` bytes, packed big endian into uint64. float64."""
        p = np.full(len(grams), 1 / 256)
        for length, level in enumerate(self._levels, start=1):
            wanted = _last(grams, length)
            count, total, types = level.look_up(wanted)
            p = np.where(total > 0, (count + types * p) / np.maximum(total + types, 1), p)
        return p

    def document_bits(self, document: bytes, whole: bool = True) -> float:
        """-log2 p of a document on its own. `whole`: its end counts as well."""
        grams, _ = _grams(self.order, [document + END if whole else document])
        return float(-np.log2(self.probabilities(grams)).sum())

    def distribution(self, context: bytes) -> np.ndarray:
        """p of each of the 256 bytes after `context` (at a document's start: what there is of it). Sums to 1."""
        known = context[-(self.order - 1) :] if self.order > 1 else b""
        packed = int.from_bytes(known, "big") << 8
        return self.probabilities(np.uint64(packed) + np.arange(256, dtype=np.uint64))


class _Level:
    """Counts of the grams of one length."""

    def __init__(self, grams: np.ndarray) -> None:
        self._grams, self._counts = np.unique(grams, return_counts=True)
        contexts = self._grams >> np.uint64(8)
        self._contexts, first = np.unique(contexts, return_index=True)
        bounds = np.append(first, len(contexts))
        self._types = np.diff(bounds)
        self._totals = np.diff(np.append(0, np.cumsum(self._counts))[bounds])

    def look_up(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """count(c b), count(c), types(c) of each gram c b."""
        count = _find(self._grams, self._counts, grams)
        contexts = grams >> np.uint64(8)
        return count, _find(self._contexts, self._totals, contexts), _find(self._contexts, self._types, contexts)


def _find(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """values[i] where keys[i] is the wanted one, 0 where none is. `keys` ascend."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


def _last(grams: np.ndarray, length: int) -> np.ndarray:
    """The last `length` bytes of each gram."""
    return grams & np.uint64((1 << 8 * length) - 1)


def _grams(order: int, documents: list[bytes]) -> tuple[np.ndarray, int]:
    """The gram that ends in each byte of each document, NUL bytes standing before the first; and the bytes in all."""
    padding = bytes(order - 1)
    stream = np.frombuffer(b"".join(padding + document for document in documents), np.uint8)
    real = np.ones(len(stream), bool)
    start = 0
    for document in documents:
        real[start : start + len(padding)] = False
        start += len(padding) + len(document)
    grams = np.zeros(len(stream), np.uint64)
    for back in range(min(order, len(stream))):
        grams[back:] |= stream[: len(stream) - back].astype(np.uint64) << np.uint64(8 * back)
    return grams[real], int(real.sum())
