"""Perplexity from a mean loss. The module imports nothing but the standard library."""

from __future__ import annotations

import math


def perplexity(loss: float, *, base: float = math.e) -> float:
    """`base ** loss`, at least 1 for a loss of at least 0; infinite where that is too large for a float.

    loss: the mean negative log-likelihood per token (or per word), measured with logarithms to `base`: e for nats, 2
        for bits.
    """
    try:
        return math.pow(base, loss)
    except OverflowError:
        return math.inf
