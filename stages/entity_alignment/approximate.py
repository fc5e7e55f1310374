"""Approximate nearest neighbours with FAISS, for sets whose matrix of similarities takes too long to compute.

A graph of neighbours over 8-bit codes (HNSW: Malkov and Yashunin 2018, arXiv 1603.09320; Douze et al. 2024, arXiv
2401.08281) proposes candidates; their cosines are then computed from the vectors themselves. A neighbour can be missed,
but what is found has its exact cosine.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stages import csls
from stages.base import StageError
from stages.csls import Array, Selection
from stages.entity_alignment.ranking import Found, Ranks

DEPTH = 100  # candidates of a query
LINKS = 16  # of a key in the graph, on each of its layers
BREADTH_OF_KEYS = 40  # keys that are looked at to find the links of a new one
BREADTH_OF_QUERIES = 128  # at least DEPTH
TRAINING_ROWS = 1 << 14  # from which the ranges of the codes are taken
ADDED_ROWS = 1 << 16  # keys that are read at once
SEARCHED_ROWS = 1 << 10  # queries at once: their candidates' vectors are in memory
RECALL_QUERIES = 1000


class Index:
    """The keys, in a graph in which neighbours are found fast. It takes a byte a dimension, and 150 bytes for links."""

    def __init__(self, keys: Selection) -> None:
        """Raises StageError if FAISS is not installed."""
        faiss = _faiss()
        self._keys = keys
        self._index = faiss.index_factory(keys[:0].shape[1], f"HNSW{LINKS}_SQ8", faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction, self._index.hnsw.efSearch = BREADTH_OF_KEYS, BREADTH_OF_QUERIES
        sample = np.random.default_rng(0).permutation(len(keys))[:TRAINING_ROWS]
        self._index.train(np.ascontiguousarray(keys[np.sort(sample)], np.float32))
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)  # in FAISS 1.12 the graph depends on the number of threads
        try:
            for start in range(0, len(keys), ADDED_ROWS):
                self._index.add(np.ascontiguousarray(keys[start : start + ADDED_ROWS], np.float32))
        finally:
            faiss.omp_set_num_threads(before)

    def nearest(self, queries: Array, count: int) -> tuple[Array, Array]:
        """(places, cosines) of at most `count` keys for each query, best first. Where fewer are found, -1 and -inf."""
        _, places = self._index.search(np.ascontiguousarray(queries, np.float32), min(count, len(self._keys)))
        cosines = np.einsum("qd,qcd->qc", queries, self._keys[np.maximum(places, 0)])
        cosines[places < 0] = -np.inf
        order = np.argsort(-cosines, axis=1, kind="stable")
        return np.take_along_axis(places, order, axis=1), np.take_along_axis(cosines, order, axis=1)


def found(left: Selection, right: Selection, neighbours: int) -> Found:
    """The ranks of n pairs among the 100 candidates that are found for each query: `ranking.found`, approximately.

    A counterpart that is not among the candidates has the rank after the last of them. Raises StageError if FAISS is
    not installed.
    """
    forward, backward = _neighbours(left, right), _neighbours(right, left)
    of_left, of_right = _density(forward[1], neighbours), _density(backward[1], neighbours)
    return Found(Ranks(_ranks(*forward, of_right), _ranks(*backward, of_left)), (of_left, of_right))


def _neighbours(queries: Selection, keys: Selection) -> tuple[Array, Array]:
    """The candidates of all queries and their cosines, each [queries, candidates]."""
    index, count = Index(keys), min(DEPTH, len(keys))
    places, cosines = np.empty((len(queries), count), np.int32), np.empty((len(queries), count), np.float32)
    for start in range(0, len(queries), SEARCHED_ROWS):
        rows = slice(start, start + SEARCHED_ROWS)
        places[rows], cosines[rows] = index.nearest(queries[rows], DEPTH)
    return places, cosines


def _density(cosines: Array, neighbours: int) -> Array:
    """The mean of the greatest cosines, which come first. All are 0 if `neighbours` is 0."""
    if not neighbours:
        return np.zeros(len(cosines), cosines.dtype)
    best = cosines[:, :neighbours]
    return np.asarray(np.where(np.isfinite(best), best, 0).sum(axis=1) / np.maximum(1, np.isfinite(best).sum(axis=1)))


def _ranks(places: Array, cosines: Array, of_keys: Array) -> Array:
    """The ranks of key i for query i. The density of the query is the same for all its candidates."""
    scores: Array = 2 * cosines - of_keys[places]  # -inf where there is no candidate
    own = places == np.arange(len(places))[:, None]
    true = np.where(own, scores, -np.inf).max(axis=1, keepdims=True)
    rank = 1 + (scores > true).sum(axis=1) + ((scores == true).sum(axis=1) - 1) / 2
    return np.asarray(np.where(own.any(axis=1), rank, places.shape[1] + 1))


def recall(left: Selection, right: Selection, seed: int) -> float:
    """The share of the 10 nearest right vectors under the cosine that is found, over at most 1,000 random left ones."""
    chosen = np.random.default_rng(seed).permutation(len(left))[:RECALL_QUERIES]
    queries, count = left[chosen], min(10, len(right))
    approximate = Index(right).nearest(queries, DEPTH)[0][:, :count]
    exact, _ = csls.nearest(queries, right, np.zeros(len(queries)), np.zeros(len(right)), count)
    return float(np.mean([len(np.intersect1d(*rows)) / count for rows in zip(approximate, exact, strict=True)]))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise StageError("search: approximate needs FAISS; install it with pip install 'bloomline[faiss]'") from None
    return faiss
