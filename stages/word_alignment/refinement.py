"""Refinement of an alignment by the dictionary that it finds itself, and the supervised maps (Procrustes, RCSLS)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from stages.csls import BLOCK_ELEMENTS, match
from stages.word_alignment.linear import Array, mapped, procrustes
from stages.word_alignment.settings import NEIGHBOURS

RCSLS_ROUNDS = 10
RCSLS_STEP = 1.0


def refine(source: Array, target: Array, mapping: Array, rounds: int, progress: Callable[[Array], None]) -> Array:
    """`rounds` times: the pairs that are each other's best under CSLS, then Procrustes on them (Conneau et al. 2018).

    `progress` is called with W after each round. Stops early where the pairs no longer change, or where fewer than two
    are left.
    """
    before: tuple[Array, Array] | None = None
    for _ in range(rounds):
        pairs = match(mapped(source, mapping), target, NEIGHBOURS).mutual()
        if len(pairs[0]) < 2 or (before is not None and all(map(np.array_equal, before, pairs))):
            break
        mapping = procrustes(source[pairs[0]], target[pairs[1]])
        progress(mapping)
        before = pairs
    return mapping


def supervised(source: Array, target: Array, pairs: Mapping[int, Iterable[int]]) -> Array:
    """Procrustes on the pairs of a dictionary: source index -> indices of its translations."""
    sources, targets = _paired(pairs)
    return procrustes(source[sources], target[targets])


def rcsls(source: Array, target: Array, pairs: Mapping[int, Iterable[int]]) -> Array:
    """The linear map that minimises the relaxed CSLS loss of a dictionary (Joulin et al. 2018, arXiv 1804.07745).

    Gradient descent from Procrustes; a step that raises the loss is undone and the step size halved. The map is not
    orthogonal.
    """
    sources, targets = _paired(pairs)
    x, y = source[sources].astype(np.float64), target[targets].astype(np.float64)
    mapping, step = procrustes(x, y), RCSLS_STEP
    loss, gradient = _rcsls_loss(mapping, x, y, source, target)
    for _ in range(RCSLS_ROUNDS):
        candidate = mapping - step * gradient
        new_loss, new_gradient = _rcsls_loss(candidate, x, y, source, target)
        if new_loss < loss:
            mapping, loss, gradient = candidate, new_loss, new_gradient
        else:
            step /= 2
    return mapping


def _rcsls_loss(mapping: Array, x: Array, y: Array, source: Array, target: Array) -> tuple[float, Array]:
    """Equation 4 of Joulin et al. 2018, and its gradient: mean over pairs of -2 xWy + the two densities."""
    mapped = x @ mapping
    near_targets = _means_of_nearest(mapped, target)  # for each x: mean of its k nearest targets
    near_sources = _means_of_nearest(y @ mapping.T, source)  # for each y: mean of the k sources nearest under W
    pull = near_targets - 2 * y
    loss = np.einsum("ij,ij->", mapped, pull) + np.einsum("ij,ij->", near_sources @ mapping, y)
    return float(loss) / len(x), (x.T @ pull + near_sources.T @ y) / len(x)


def _means_of_nearest(queries: Array, keys: Array) -> Array:
    """The mean of the k keys with the highest dot product with each query."""
    k = min(NEIGHBOURS, len(keys))
    rows = max(1, BLOCK_ELEMENTS // len(keys))
    found = np.empty((len(queries), keys.shape[1]), np.float64)
    for start in range(0, len(queries), rows):
        products = queries[start : start + rows] @ keys.T
        chosen = np.argpartition(-products, k - 1, axis=1)[:, :k]
        found[start : start + rows] = keys[chosen].mean(axis=1)
    return found


def _paired(pairs: Mapping[int, Iterable[int]]) -> tuple[Array, Array]:
    flat = np.array([(source, target) for source, targets in pairs.items() for target in sorted(targets)], np.int64)
    return flat[:, 0], flat[:, 1]
