"""Exact ranks and nearest neighbours under CSLS, in blocks: memory does not grow with the product of the two sides.

CSLS (Conneau et al. 2018, arXiv 1710.04087, equation 3) of unit vectors x and y is 2 cos(x, y) - r(x) - r(y), where
r(x), here the density of x, is the mean cosine of x to its k nearest vectors of the other side. The Euclidean distance
that the released code of MEAformer starts from gives the same order: 1 - |x - y|^2 is 2 cos(x, y) - 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK_ELEMENTS = 1 << 23  # of a block of similarities: 32 MiB in float32


def blocks(queries: Tensor, keys: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(rows, similarities [rows, keys]) of consecutive rows of `queries`."""
    size = max(1, BLOCK_ELEMENTS // max(1, len(keys)))
    for start in range(0, len(queries), size):
        rows = slice(start, min(start + size, len(queries)))
        yield rows, queries[rows] @ keys.t()


def densities(queries: Tensor, keys: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    """The mean cosine of each query to its nearest keys, and of each key to its nearest queries, in one pass."""
    k, of_keys = min(neighbours, len(keys)), min(neighbours, len(queries))
    found = torch.empty(len(queries))
    best = torch.full((of_keys, len(keys)), -torch.inf)
    for rows, block in blocks(queries, keys):
        found[rows] = block.topk(k, dim=1).values.mean(dim=1)
        best = torch.cat([best, block.topk(min(of_keys, len(block)), dim=0).values]).topk(of_keys, dim=0).values
    return found, best.mean(dim=0)


def scores(queries: Tensor, keys: Tensor, of_queries: Tensor, of_keys: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(rows, CSLS [rows, keys]) of consecutive rows of `queries`."""
    for rows, block in blocks(queries, keys):
        yield rows, block.mul_(2).sub_(of_queries[rows, None]).sub_(of_keys)


def nearest(queries: Tensor, keys: Tensor, of_queries: Tensor, of_keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` keys of the highest CSLS for each query, best first: (places, scores), each [queries, count]."""
    count = min(count, len(keys))
    places, values = torch.empty((len(queries), count), dtype=torch.int64), torch.empty((len(queries), count))
    for rows, block in scores(queries, keys, of_queries, of_keys):
        values[rows], places[rows] = block.topk(count, dim=1)
    return places, values


@dataclass(frozen=True)
class Ranks:
    """The ranks of the n true counterparts, from 1, in both directions [n]. Ties share the mean of their ranks."""

    forward: Tensor  # of the right entity among all right ones, for each left one
    backward: Tensor


def ranks(left: Tensor, right: Tensor, neighbours: int) -> Ranks:
    """The ranks under CSLS of n pairs: row i of `left` belongs to row i of `right`, and every row is a candidate.

    `neighbours` is k of CSLS; 0: cosine. A key with the same score as the true one counts as half a better one, so that
    equal vectors do not look like hits.
    """
    of_left, of_right = densities(left, right, neighbours) if neighbours else (torch.zeros(len(left)),) * 2
    found = []
    for queries, keys, of_queries, of_keys in ((left, right, of_left, of_right), (right, left, of_right, of_left)):
        one = torch.empty(len(queries))
        for rows, block in scores(queries, keys, of_queries, of_keys):
            true = block[torch.arange(len(block)), torch.arange(rows.start, rows.stop)].unsqueeze(1)
            better, equal = (block > true).sum(dim=1), (block == true).sum(dim=1)
            one[rows] = 1 + better + (equal - 1) / 2
        found.append(one)
    return Ranks(*found)


def mutual_nearest(left: Tensor, right: Tensor) -> Tensor:
    """The pairs of rows that are each other's nearest under the cosine: [pairs, 2]."""
    to_right = torch.empty(len(left), dtype=torch.int64)
    best, to_left = torch.full((len(right),), -torch.inf), torch.zeros(len(right), dtype=torch.int64)
    for rows, block in blocks(left, right):
        to_right[rows] = block.argmax(dim=1)
        values, places = block.max(dim=0)
        better = values > best
        best, to_left = torch.where(better, values, best), torch.where(better, places + rows.start, to_left)
    own = torch.arange(len(left))
    kept = own[to_left[to_right] == own]
    return torch.stack([kept, to_right[kept]], dim=1)
