"""Quantization of a cloud of word vectors: k centroids with the share of the words that each stands for."""

from __future__ import annotations

import numpy as np

from stages.word_alignment.linear import Array
from stages.word_alignment.settings import Sampler

KMEANS_ROUNDS = 25
PROPOSALS = 64  # of a block of seeds
BLOCK_ELEMENTS = 1 << 24  # of a block of distances


def quantize(points: Array, count: int, sampler: Sampler, generator: np.random.Generator) -> tuple[Array, Array]:
    """Centroids [k, d] of `points` [n, d] and their weights [k], which add up to 1; k is at most `count` and n.

    random            points chosen uniformly without replacement; each has the same weight
    kmeans_plus_plus  points chosen by D^2 seeding (Arthur & Vassilvitskii 2007), weighted by their Voronoi cells
    lloyd             the same, then one Lloyd step: each is replaced by the mean of its cell
    kmeans            the same, with Lloyd steps until nothing changes, or at most 25

    Centroids without points (of duplicates) are left out. Means are not scaled to length 1: their shorter length tells
    the transport how dispersed the words of a cell are.
    """
    count = min(count, len(points))
    if sampler == "random":
        return points[generator.choice(len(points), count, replace=False)], np.full(count, 1 / count)
    centroids, cells = _seeds(points, count, generator)
    for _ in range({"kmeans_plus_plus": 0, "lloyd": 1, "kmeans": KMEANS_ROUNDS}[sampler]):
        centroids = _means(points, cells, centroids)
        before, cells = cells, _cells(points, centroids)
        if np.array_equal(before, cells):
            break
    weights = np.bincount(cells, minlength=len(centroids)) / len(points)
    return centroids[weights > 0], weights[weights > 0]


def _seeds(points: Array, count: int, generator: np.random.Generator) -> tuple[Array, Array]:
    """Points chosen one by one, each with a probability proportional to its squared distance from those chosen.

    Returns the chosen points [k, d] and the place among them of the nearest one for every point [n].

    The distances are brought up to date once a block, by one product of matrices. Within a block, points are proposed
    by the distances at its beginning, and accepted with the share of these that is left. That is rejection sampling:
    the choice has the same distribution as with distances that are always up to date.
    """
    squares = np.einsum("ij,ij->i", points, points)
    distances = np.full(len(points), np.inf, points.dtype)
    cells = np.zeros(len(points), np.intp)
    chosen: list[int] = []
    new = [int(generator.integers(len(points)))]
    while True:
        to_new = squares[new] - 2 * (points @ points[new].T)
        nearest = to_new.argmin(axis=1)
        to_nearest = np.maximum(squares + to_new[np.arange(len(points)), nearest], 0)
        closer = to_nearest < distances
        cells[closer] = len(chosen) + nearest[closer]
        distances = np.minimum(distances, to_nearest)
        distances[new] = 0  # exactly: a rounding error would let a point be chosen again
        chosen = chosen + new
        total = np.cumsum(distances, dtype=np.float64)
        if len(chosen) == count or total[-1] <= 0:  # all other points are duplicates of those chosen
            break
        places = np.searchsorted(total, generator.random(PROPOSALS) * total[-1], side="right")
        proposed = np.minimum(places, len(points) - 1)
        new = _accepted(points[proposed], distances[proposed], generator.random(PROPOSALS), proposed)
        new = new[: count - len(chosen)]
    return points[chosen], cells


def _accepted(points: Array, distances: Array, draws: Array, places: Array) -> list[int]:
    """The places of those proposals [p] whose draw is below the share that is left of their squared distance [p]."""
    squares = np.einsum("ij,ij->i", points, points)
    between = squares[:, None] + squares - 2 * (points @ points.T)
    left, accepted = distances.copy(), []
    for proposal, place in enumerate(places):
        if draws[proposal] * distances[proposal] < left[proposal]:
            accepted.append(int(place))
            left = np.minimum(left, between[proposal])
            left[places == place] = 0
    return accepted


def _cells(points: Array, centroids: Array) -> Array:
    """The index of the nearest centroid of each point."""
    half_squares = np.einsum("ij,ij->i", centroids, centroids) / 2
    rows = max(1, BLOCK_ELEMENTS // len(centroids))
    return np.concatenate([
        (points[start : start + rows] @ centroids.T - half_squares).argmax(axis=1)
        for start in range(0, len(points), rows)
    ])  # fmt: skip


def _means(points: Array, cells: Array, centroids: Array) -> Array:
    """The mean of each cell; the centroid itself where its cell is empty."""
    from scipy.sparse import csr_array

    sizes = np.bincount(cells, minlength=len(centroids))
    ones = np.ones(len(points), points.dtype)
    members = csr_array((ones, (cells, np.arange(len(points)))), shape=(len(centroids), len(points)))
    sums = members @ points
    return np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centroids).astype(points.dtype)
