"""ALiBi (arXiv 2108.12409): attention that knows distance by a linear bias."""

from __future__ import annotations

import math


def slopes(heads: int) -> list[float]:
    """The bias per token of distance, one a head: a geometric sequence that ends at 2^-8.

    Where `heads` is no power of two, the sequence of the next lower power comes first, then every other member of the
    next higher power's.
    """
    lower = 2 ** math.floor(math.log2(heads))
    sequence = [2.0 ** (-8 * (i + 1) / lower) for i in range(lower)]
    between = [2.0 ** (-8 * (i + 1) / (2 * lower)) for i in range(0, 2 * (heads - lower), 2)]
    return sequence + between
