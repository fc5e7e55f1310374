"""Exact nearest neighbours under cosine and CSLS, computed in blocks so that memory does not grow with the vocabulary.

CSLS (Conneau et al. 2018, arXiv 1710.04087, equation 3) of unit vectors x and y is 2 cos(x, y) - r(x) - r(y), where
r(x), here the density of x, is the mean cosine between x and its k nearest vectors of the other language.
All arrays hold one unit vector a row; queries and keys are of the two languages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stages.word_alignment.linear import Array

NEIGHBOURS = 10  # k of CSLS in the paper and in MUSE
BLOCK_ELEMENTS = 1 << 24  # of a block of similarities: 64 MiB in float32


def blocks(queries: Array, keys: Array) -> Iterator[tuple[int, Array]]:
    """(first row, similarities [rows, keys]) of consecutive rows of `queries`."""
    rows = max(1, BLOCK_ELEMENTS // len(keys))
    for start in range(0, len(queries), rows):
        yield start, queries[start : start + rows] @ keys.T


def densities(queries: Array, keys: Array, neighbours: int = NEIGHBOURS) -> Array:
    """The mean cosine of each query to its `neighbours` nearest keys (fewer where there are fewer keys)."""
    k = min(neighbours, len(keys))
    found = np.empty(len(queries), queries.dtype)
    for start, block in blocks(queries, keys):
        found[start : start + len(block)] = np.partition(block, -k, axis=1)[:, -k:].mean(axis=1)
    return found


def nearest(
    queries: Array, keys: Array, query_densities: Array, key_densities: Array, count: int
) -> tuple[Array, Array]:
    """The `count` keys of the highest CSLS for each query, best first: (indices, scores), each [queries, count].

    Of equal scores the key with the smaller index comes first.
    """
    count = min(count, len(keys))
    indices = np.empty((len(queries), count), np.int64)
    scores = np.empty((len(queries), count), queries.dtype)
    for start, block in blocks(queries, keys):
        stop = start + len(block)
        block *= 2
        block -= query_densities[start:stop, None]
        block -= key_densities
        chosen = np.sort(np.argpartition(-block, count - 1, axis=1)[:, :count], axis=1)
        values = np.take_along_axis(block, chosen, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        indices[start:stop] = np.take_along_axis(chosen, order, axis=1)
        scores[start:stop] = np.take_along_axis(values, order, axis=1)
    return indices, scores


@dataclass(frozen=True)
class Matching:
    """The best key of every query and the best query of every key, under CSLS."""

    key_of_query: Array  # [queries]
    score_of_query: Array  # [queries]
    query_of_key: Array  # [keys]

    @property
    def criterion(self) -> float:
        """The mean CSLS of the queries' best keys: the unsupervised measure of an alignment. Higher is better."""
        return float(self.score_of_query.mean(dtype=np.float64))

    def mutual(self) -> tuple[Array, Array]:
        """The pairs (queries, keys) that are each other's best."""
        queries = np.flatnonzero(self.query_of_key[self.key_of_query] == np.arange(len(self.key_of_query)))
        return queries, self.key_of_query[queries]


def match(queries: Array, keys: Array, neighbours: int = NEIGHBOURS) -> Matching:
    """Match queries and keys in both directions."""
    query_densities, key_densities = densities(queries, keys, neighbours), densities(keys, queries, neighbours)
    best_key = np.empty(len(queries), np.int64)
    best_score = np.empty(len(queries), queries.dtype)
    best_query = np.zeros(len(keys), np.int64)
    best_column = np.full(len(keys), -np.inf, queries.dtype)
    for start, block in blocks(queries, keys):
        stop = start + len(block)
        block *= 2
        block -= query_densities[start:stop, None]
        block -= key_densities
        best_key[start:stop] = block.argmax(axis=1)
        best_score[start:stop] = block[np.arange(len(block)), best_key[start:stop]]
        rows = block.argmax(axis=0)
        values = block[rows, np.arange(len(keys))]
        better = values > best_column
        best_query[better], best_column[better] = rows[better] + start, values[better]
    return Matching(best_key, best_score, best_query)


def ranks(
    queries: Array,
    keys: Array,
    query_densities: Array,
    key_densities: Array,
    correct: Sequence[Iterable[int]],
) -> Array:
    """The rank of the best correct key of each query under CSLS, from 1: how many keys score higher, plus one."""
    found = np.empty(len(queries), np.int64)
    for start, block in blocks(queries, keys):
        block = 2 * block - query_densities[start : start + len(block), None] - key_densities
        for row, scores in enumerate(block):
            best = scores[list(correct[start + row])].max()
            found[start + row] = 1 + np.count_nonzero(scores > best)
    return found
