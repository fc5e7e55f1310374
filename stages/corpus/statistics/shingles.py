"""Shingles (runs of words) as 64-bit hashes, to find near-duplicates and evaluation sets. Vectorised over a batch.

Texts with the same words have the same hashes, independently of case, punctuation and white space. A word is a run of
letters, marks and digits; in scripts without spaces between words (Chinese, Japanese, Thai) it is a character. The
hash of a shingle is the mixed hash of its characters (see `rolling`), the same on every machine and in every run.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from stages.corpus.statistics.rolling import inverse_powers, mixed, prefix_sums

if TYPE_CHECKING:
    import numpy as np

_BETWEEN, _IN_WORD, _WORD = 0, 1, 2  # a character between words, part of a word, and a word by itself
_TABLE = 1 << 17  # the planes with scripts; above are ideographs and unassigned code points

# Scripts without spaces between words.
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x1B000, 0x1B16F),
)  # fmt: skip


@dataclass(frozen=True)
class Shingles:
    """The hashes of all shingles of several texts, text by text in order."""

    hashes: np.ndarray  # uint64
    starts: np.ndarray  # int64 [texts + 1]: the first hash of each text
    _spans: tuple[np.ndarray, np.ndarray]  # int64 [hashes] each: the first character of each run, and its last
    _bounds: np.ndarray  # int64 [texts + 1]: the first character of each text

    def text_of(self, places: np.ndarray) -> np.ndarray:
        """The text of each of the given hashes. int64."""
        import numpy as np

        found: np.ndarray = np.searchsorted(self.starts, places, side="right") - 1
        return found

    def characters(self, places: np.ndarray) -> np.ndarray:
        """The start and the end of the shingles of given hashes in their texts, in characters. int64 [places, 2]."""
        import numpy as np

        first, last = (span[places] for span in self._spans)
        spans: np.ndarray = np.stack([first, last + 1], axis=1) - self._bounds[self.text_of(places)][:, None]
        return spans


def shingles(texts: Sequence[str], length: int) -> Shingles:
    """The shingles of `length` words of each text. A text with fewer words has one shingle of all its words."""
    import numpy as np

    bounds = np.concatenate([[0], np.cumsum([len(text) for text in texts], dtype=np.int64)]).astype(np.int64)
    folded, inside, alone = _classified("".join(texts))
    begins = inside.copy()
    begins[1:] &= ~inside[:-1]
    if alone is not None:
        begins |= alone
        begins[1:] |= inside[1:] & alone[:-1]
    at_bounds = bounds[:-1][bounds[:-1] < len(inside)]
    begins[at_bounds] = inside[at_bounds]

    places = np.flatnonzero(inside)  # of the characters that count
    begins_word = begins[places]
    words = np.flatnonzero(begins_word)  # the first such character of each word
    ends = np.append(words[1:], len(places))
    values = folded[places].astype(np.uint64)
    values <<= np.uint64(1)
    values |= begins_word
    prefix = prefix_sums(values)

    first_word = np.searchsorted(places[words], bounds) if len(words) else np.zeros(len(bounds), np.int64)
    count = np.diff(first_word)
    runs = np.where(count >= length, count - length + 1, np.minimum(count, 1))
    starts = np.concatenate([[0], np.cumsum(runs)]).astype(np.int64)
    first = np.arange(starts[-1]) + np.repeat(first_word[:-1] - starts[:-1], runs)
    last = first + np.repeat(np.minimum(length, count) - 1, runs)
    from_, to = words[first], ends[last]
    hashes = mixed((prefix[to] - prefix[from_]) * inverse_powers(len(prefix))[from_])
    return Shingles(hashes, starts, (places[from_], places[to - 1]), bounds)


def _classified(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """For each character: its lower case, whether it is part of a word, and whether it is a word (None: none is)."""
    import numpy as np

    if text.isascii():
        data = text.encode()
        lower, inside = _ascii_tables()
        return np.frombuffer(data.translate(lower), np.uint8), np.frombuffer(data.translate(inside), bool), None
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    folds, kinds = _tables()
    kind = kinds.take(codes, mode="clip")
    folded = folds.take(codes, mode="clip")
    if (codes >= _TABLE).any():
        folded = np.where(codes < _TABLE, folded, codes)
    return folded, kind != _BETWEEN, kind == _WORD


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """For each character below _TABLE, and one entry for all above: its lower case (if one character), and its kind."""
    import numpy as np

    characters = "".join(map(chr, range(_TABLE)))
    lower = np.arange(_TABLE + 1, dtype=np.uint32)
    kinds = np.zeros(_TABLE + 1, np.uint8)
    kinds[:-1][[category[0] in "LMN" for category in map(unicodedata.category, characters)]] = _IN_WORD
    for code, (character, small) in enumerate(zip(characters, map(str.lower, characters), strict=True)):
        if character != small and len(small) == 1 and kinds[code]:
            lower[code] = ord(small)
    for first, last in _UNSPACED:
        block = kinds[first : last + 1]
        block[block == _IN_WORD] = _WORD
    kinds[-1] = _WORD
    return lower, kinds


@cache
def _ascii_tables() -> tuple[bytes, bytes]:
    """The same tables for bytes.translate: the lower case of every byte, and whether it is part of a word (1 or 0)."""
    codes = bytes(range(256))
    return codes.lower(), bytes(code < 128 and chr(code).isalnum() for code in codes)
