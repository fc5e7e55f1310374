"""ALiBi (arXiv 2108.12409): attention that knows distance by a linear bias, and what each query may see."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def slopes(heads: int) -> list[float]:
    """The bias per token of distance, one a head: a geometric sequence that ends at 2^-8.

    Where `heads` is no power of two, the sequence of the next lower power comes first, then every other member of the
    next higher power's.
    """
    lower = 2 ** math.floor(math.log2(heads))
    sequence = [2.0 ** (-8 * (i + 1) / lower) for i in range(lower)]
    between = [2.0 ** (-8 * (i + 1) / (2 * lower)) for i in range(0, 2 * (heads - lower), 2)]
    return sequence + between


def attention_bias(head_slopes: Tensor, query_positions: Tensor, key_count: int) -> Tensor:
    """The bias of queries at `query_positions` [batch, queries] on keys 0..`key_count`: slope times distance, and
    minus infinity on keys after the query. Shape [batch, heads, queries, keys].

    The distance is relative, so that near keys keep full precision at any position (softmax ignores a shift of a row,
    and so this equals a bias by the key's position).
    """
    keys = torch.arange(key_count, device=query_positions.device)
    distance = keys - query_positions[:, None, :, None]
    bias = head_slopes[:, None, None] * distance
    return bias.masked_fill_(distance > 0, -math.inf)


def separate(bias: Tensor, documents: Tensor) -> Tensor:
    """`bias` [1, heads, length, length] with documents kept apart: minus infinity where query and key are of
    different `documents` [batch, length]. Shape [batch, heads, length, length]."""
    same = documents[:, None, :, None] == documents[:, None, None, :]
    return torch.where(same, bias, -math.inf)
