"""Runs of words as 64-bit hashes: what near-duplicates and evaluation sets are found by. Vectorised over a batch.

Two texts with the same words have the same hashes, whatever their case, punctuation and white space. A word is a run
of letters, marks and digits; where a script has no spaces between words (Chinese, Japanese, Thai, ...), a character.
The hash of a run is a polynomial of its characters modulo 2**64, taken from sums over the whole batch (Karp and Rabin,
"Efficient randomized pattern-matching algorithms", 1987), then mixed. It is the same on every machine and run.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse
_INVERSE = pow(_BASE, -1, 1 << 64)
_BETWEEN, _IN_WORD, _WORD = 0, 1, 2  # a character between words, of a word, and one that is a word
_KEPT_POWERS = 1 << 22
_TABLE = 1 << 17  # the planes with scripts; above lie ideographs and what no text holds

# Scripts that put no space between words.
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x1B000, 0x1B16F),
)  # fmt: skip


@dataclass(frozen=True)
class Shingles:
    """The hashes of all runs of `length` words of some texts, text by text in order."""

    hashes: np.ndarray  # uint64
    starts: np.ndarray  # int64 [texts + 1]: the first hash of each text
    characters: np.ndarray  # int64 [hashes, 2]: where each run begins and ends in its text, in characters

    def text_of(self, places: np.ndarray) -> np.ndarray:
        """The text that each of some hashes is of."""
        import numpy as np

        found: np.ndarray = np.searchsorted(self.starts, places, side="right") - 1
        return found


def shingles(texts: Sequence[str], length: int) -> Shingles:
    """The runs of `length` words of each text. A text of fewer words (but one) has one run: all of them."""
    import numpy as np

    data = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    bounds = np.concatenate([[0], np.cumsum([len(text) for text in texts], dtype=np.int64)]).astype(np.int64)
    lower, kinds = _tables()
    known = np.minimum(data, _TABLE - 1)
    kind = np.where(data < _TABLE, kinds[known], _WORD).astype(np.uint8)
    folded = np.where(data < _TABLE, lower[known], data)

    inside = kind != _BETWEEN
    begins = inside.copy()
    begins[1:] &= ~inside[:-1] | (kind[1:] == _WORD) | (kind[:-1] == _WORD)
    at_bounds = bounds[:-1][bounds[:-1] < len(data)]
    begins[at_bounds] = inside[at_bounds]

    places = np.flatnonzero(inside)  # of the characters that count
    begins_word = begins[places]
    words = np.flatnonzero(begins_word)  # the first such character of each word
    ends = np.append(words[1:], len(places))
    prefix = _prefix_sums((folded[places].astype(np.uint64) << np.uint64(1)) | begins_word)

    first_word = np.searchsorted(places[words], bounds) if len(words) else np.zeros(len(bounds), np.int64)
    count = np.diff(first_word)
    runs = np.where(count >= length, count - length + 1, np.minimum(count, 1))
    starts = np.concatenate([[0], np.cumsum(runs)]).astype(np.int64)
    text = np.repeat(np.arange(len(texts)), runs)
    first = np.arange(starts[-1]) - starts[text] + first_word[text]
    last = first + np.minimum(length, count[text]) - 1
    from_, to = words[first], ends[last]
    hashes = mixed((prefix[to] - prefix[from_]) * _powers(_INVERSE, len(prefix))[from_])
    spans = np.stack([places[from_], places[to - 1] + 1], axis=1) - bounds[text][:, None]
    return Shingles(hashes, starts, spans)


def windows(data: np.ndarray, length: int) -> np.ndarray:
    """The hash of every run of `length` bytes, [len(data) - length + 1]; empty if there is none."""
    import numpy as np

    if len(data) < length:
        return np.empty(0, np.uint64)
    prefix = _prefix_sums(data.astype(np.uint64))
    inverse = _powers(_INVERSE, len(prefix))[: len(prefix) - length]
    return mixed((prefix[length:] - prefix[:-length]) * inverse)


def mixed(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser, in place: every input bit reaches every output bit."""
    import numpy as np

    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _prefix_sums(values: np.ndarray) -> np.ndarray:
    """[len + 1]: the sums of (value + 1) times the base to the power of its place, modulo 2**64."""
    import numpy as np

    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum((values + np.uint64(1)) * _powers(_BASE, len(values)), out=sums[1:])
    return sums


def _powers(base: int, count: int) -> np.ndarray:
    """The first `count` powers of a base, modulo 2**64."""
    size = 1 << max(count, 1 << 16).bit_length()
    return (_kept_powers if size <= _KEPT_POWERS else _new_powers)(base, size)[:count]


def _new_powers(base: int, count: int) -> np.ndarray:
    import numpy as np

    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors)


_kept_powers = lru_cache(_new_powers)


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Of each character below _TABLE: its lower case (where that is one character), and its kind."""
    import numpy as np

    lower = np.arange(_TABLE, dtype=np.uint32)
    kinds = np.zeros(_TABLE, np.uint8)
    for code in range(_TABLE):
        character = chr(code)
        if unicodedata.category(character)[0] in "LMN":
            kinds[code] = _IN_WORD
            small = character.lower()
            if len(small) == 1:
                lower[code] = ord(small)
    for first, last in _UNSPACED:
        block = kinds[first : last + 1]
        block[block == _IN_WORD] = _WORD
    return lower, kinds
