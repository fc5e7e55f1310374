"""Exact nearest neighbours, matches and ranks of two sets of unit vectors under CSLS, in blocks of both sets.

CSLS (Conneau et al. 2018, arXiv 1710.04087, equation 3) of unit vectors x and y is 2 cos(x, y) - r(x) - r(y), where
r(x), here the density of x, is the mean cosine of x to its k nearest vectors of the other set. With k = 0 all densities
are 0, and the order is that of the cosine.

The memory is that of one block of similarities and of the results, whatever the sizes of the sets. The vectors are read
by slices, so that they may be memory maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

BLOCK_ELEMENTS = 1 << 23  # of a block of similarities: 32 MiB in float32
PAIRS = 1 << 14  # at once, whose vectors are copied
TIE = 16  # units in the last place of 1: scores that are as near as this are the same


class Rows(Protocol):
    """Unit vectors [n, d] that are read by rows: an array, a memory map, or a `Selection`."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice | Array, /) -> Array: ...


@dataclass(frozen=True)
class Selection:
    """Some rows of a table of vectors, in an order of their own. They are copied when they are read, not before."""

    vectors: Array
    rows: Array  # places in `vectors` [n]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice | Array, /) -> Array:
        return np.asarray(self.vectors[self.rows[rows]])


def places(queries: int, keys: int) -> Iterator[tuple[slice, slice]]:
    """The blocks of a matrix [queries, keys]: slices of rows and of columns, row by row."""
    width = min(keys, max(isqrt(BLOCK_ELEMENTS), BLOCK_ELEMENTS // max(1, queries)))
    height = max(1, BLOCK_ELEMENTS // max(1, width))
    for top in range(0, queries, height):
        for left in range(0, keys, width):
            yield slice(top, min(top + height, queries)), slice(left, min(left + width, keys))


def blocks(queries: Rows, keys: Rows) -> Iterator[tuple[slice, slice, Array]]:
    """(rows, columns, cosines [rows, columns]) of all blocks. Consecutive blocks have the same rows."""
    top, above = -1, queries[:0]
    for rows, columns in places(len(queries), len(keys)):
        if rows.start != top:
            top, above = rows.start, queries[rows]
        yield rows, columns, above @ keys[columns].T


def densities(queries: Rows, keys: Rows, neighbours: int) -> tuple[Array, Array]:
    """The mean cosine of each query to its nearest keys, and of each key to its nearest queries, in one pass.

    Fewer than `neighbours` where there are fewer. All are 0 if `neighbours` is 0.
    """
    kind = queries[:0].dtype
    if not neighbours:
        return np.zeros(len(queries), kind), np.zeros(len(keys), kind)
    of_queries = np.full((len(queries), min(neighbours, len(keys))), -np.inf, kind)
    of_keys = np.full((len(keys), min(neighbours, len(queries))), -np.inf, kind)
    for rows, columns, block in blocks(queries, keys):
        _keep_greatest(of_queries[rows], block)
        _keep_greatest(of_keys[columns], block.T)
    return of_queries.mean(axis=1), of_keys.mean(axis=1)


def _keep_greatest(best: Array, block: Array) -> None:
    """Update `best` [n, k], the greatest values of each row so far in ascending order, with those of `block` [n, m].

    Most rows of a late block have nothing to add, which one comparison with their maximum shows.
    """
    rows = np.flatnonzero(block.max(axis=1) > best[:, 0])
    k, values = best.shape[1], block[rows]
    if values.shape[1] > k:
        values = np.partition(values, -k, axis=1)[:, -k:]
    best[rows] = np.sort(np.concatenate([best[rows], values], axis=1), axis=1)[:, -k:]


def scores(queries: Rows, keys: Rows, of_queries: Array, of_keys: Array) -> Iterator[tuple[slice, slice, Array]]:
    """(rows, columns, CSLS [rows, columns]) of all blocks, for the densities of the queries and of the keys."""
    for rows, columns, block in blocks(queries, keys):
        block *= 2
        block -= of_queries[rows, None]
        block -= of_keys[columns]
        yield rows, columns, block


def nearest(queries: Rows, keys: Rows, of_queries: Array, of_keys: Array, count: int) -> tuple[Array, Array]:
    """The `count` keys of the highest CSLS for each query, best first: (indices, scores), each [queries, count].

    Of equal scores the key with the smaller index comes first.
    """
    count = min(count, len(keys))
    indices = np.zeros((len(queries), count), np.int64)
    values = np.full((len(queries), count), -np.inf, queries[:0].dtype)
    for rows, columns, block in scores(queries, keys, of_queries, of_keys):
        changed = np.flatnonzero(block.max(axis=1) > values[rows, -1])
        if not len(changed):
            continue
        block, kept = block[changed], min(count, block.shape[1])
        chosen = np.sort(np.argpartition(block, -kept, axis=1)[:, -kept:], axis=1)
        found = np.concatenate([values[rows][changed], np.take_along_axis(block, chosen, axis=1)], axis=1)
        at = np.concatenate([indices[rows][changed], chosen + columns.start], axis=1)
        order = np.argsort(-found, axis=1, kind="stable")[:, :count]
        values[rows.start + changed] = np.take_along_axis(found, order, axis=1)
        indices[rows.start + changed] = np.take_along_axis(at, order, axis=1)
    return indices, values


@dataclass(frozen=True)
class Matching:
    """The best key of every query and the best query of every key."""

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


def match(queries: Rows, keys: Rows, neighbours: int) -> Matching:
    """Match queries and keys in both directions under CSLS with this number of neighbours."""
    kind = queries[:0].dtype
    best_key, best_score = np.zeros(len(queries), np.int64), np.full(len(queries), -np.inf, kind)
    best_query, best_column = np.zeros(len(keys), np.int64), np.full(len(keys), -np.inf, kind)
    for rows, columns, block in scores(queries, keys, *densities(queries, keys, neighbours)):
        _keep_best(best_score[rows], best_key[rows], block, columns.start)
        _keep_best(best_column[columns], best_query[columns], block.T, rows.start)
    return Matching(best_key, best_score, best_query)


def _keep_best(best: Array, place: Array, block: Array, first: int) -> None:
    """Update the greatest value of each row and its column with those of `block`, whose columns begin at `first`."""
    values = block.max(axis=1)
    better = np.flatnonzero(values > best)
    best[better] = values[better]
    place[better] = block[better].argmax(axis=1) + first


def ranks(queries: Rows, keys: Rows, of_queries: Array, of_keys: Array, correct: Array) -> Array:
    """The rank under CSLS of the best correct key of each query, from 1 [queries].

    `correct` [n, 2] has pairs (query, key), at least one for each query. A wrong key with the same score as the best
    correct one counts as half a better one, so that equal vectors do not look like hits. Scores that differ by less
    than 16 units in the last place of 1 are the same: products of equal vectors differ by their place in a block.
    """
    score = np.concatenate(
        [
            _csls_of_pairs(queries, keys, of_queries, of_keys, correct[start : start + PAIRS])
            for start in range(0, len(correct), PAIRS)
        ]
    )
    tie = TIE * np.finfo(score.dtype).eps
    best = np.full(len(queries), -np.inf, score.dtype)
    np.maximum.at(best, correct[:, 0], score)
    ties = correct[score >= best[correct[:, 0]] - tie, 0]  # correct ones, which are counted below and are not wrong
    found = 1 - np.bincount(ties, minlength=len(queries)) / 2
    for rows, _, block in scores(queries, keys, of_queries, of_keys):
        limit = best[rows, None]
        found[rows] += ((block > limit + tie).sum(axis=1) + (block >= limit - tie).sum(axis=1)) / 2
    return found


def _csls_of_pairs(queries: Rows, keys: Rows, of_queries: Array, of_keys: Array, pairs: Array) -> Array:
    left, right = pairs.T
    cosines = np.vecdot(queries[left], keys[right])
    return np.asarray(2 * cosines - of_queries[left] - of_keys[right])
