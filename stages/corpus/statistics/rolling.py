"""Hashes of all runs of a sequence: polynomials modulo 2**64, computed from differences of prefix sums.

With prefix = prefix_sums(values), the hash of values[start:stop] is (prefix[stop] - prefix[start]) times
inverse_powers(...)[start]: equal runs have equal hashes at any position (Karp and Rabin, "Efficient randomized
pattern-matching algorithms", 1987). Its low bits depend on few values until it is `mixed`. It is the same on every
machine and in every run.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse
_INVERSE = pow(_BASE, -1, 1 << 64)
_KEPT_POWERS = 1 << 22


def prefix_sums(values: np.ndarray) -> np.ndarray:
    """Prefix sums of (value + 1) times the base to the power of its position. uint64 [len + 1]. `values`: unsigned."""
    import numpy as np

    sums = np.zeros(len(values) + 1, np.uint64)
    terms = values.astype(np.uint64)
    terms += np.uint64(1)
    terms *= _powers(_BASE, len(values))
    np.cumsum(terms, out=sums[1:])
    return sums


def inverse_powers(count: int) -> np.ndarray:
    """The factor of the difference of two prefix sums for each start of a run. uint64 [count]."""
    return _powers(_INVERSE, count)


def mixed(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser, in place: every input bit reaches every output bit."""
    import numpy as np

    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


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
