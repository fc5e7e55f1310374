"""ALiBi (arXiv 2108.12409): attention with a linear bias on distance."""

from __future__ import annotations

import math


def slopes(heads: int) -> list[float]:
    """The bias per token of distance for each head, [heads]: a geometric sequence that ends at 2^-8.

    If `heads` is not a power of two, the sequence for the next lower power comes first, followed by every other
    element of the sequence for the next higher power.
    """
    lower = 2 ** math.floor(math.log2(heads))
    sequence = [2.0 ** (-8 * (i + 1) / lower) for i in range(lower)]
    between = [2.0 ** (-8 * (i + 1) / (2 * lower)) for i in range(0, 2 * (heads - lower), 2)]
    return sequence + between
