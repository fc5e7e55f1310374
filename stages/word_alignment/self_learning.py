"""Unsupervised start from similarity rows, and stochastic self-learning, after VecMap (Artetxe et al. 2018).

Source: arXiv 1805.06297, sections 3.2 and 3.3, without its symmetric re-weighting.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stages.csls import match
from stages.word_alignment.linear import Array, mapped, procrustes, unit
from stages.word_alignment.settings import NEIGHBOURS

FIRST_KEPT_SHARE = 0.1  # of the pairs, at first
PATIENCE = 5  # rounds without a better criterion before more pairs are kept
ROUNDS = 100
LEAST_GAIN = 1e-4


def similarity_start(source: Array, target: Array) -> Array:
    """W from words whose sorted similarities to the other words of their own language are alike.

    Both [n, d] with the same number of words. Under isometry the sorted rows of translations are equal.
    """
    matching = match(_sorted_similarities(source), _sorted_similarities(target), NEIGHBOURS)
    return procrustes(source, target[matching.key_of_query])


def self_learning(
    source: Array, target: Array, start: Array, generator: np.random.Generator, progress: Callable[[Array], None]
) -> Array:
    """Dictionary and Procrustes by turns, from a random share of the mutual pairs that doubles when progress ends.

    `progress` is called with W after each round. Returns the W of the best criterion.
    """
    mapping = best = start
    best_criterion, waited, share = -np.inf, 0, FIRST_KEPT_SHARE
    for _ in range(ROUNDS):
        matching = match(mapped(source, mapping), target, NEIGHBOURS)
        if matching.criterion > best_criterion + LEAST_GAIN:
            best, best_criterion, waited = mapping, matching.criterion, 0
        else:
            waited += 1
        if waited > PATIENCE:
            if share >= 1:
                break
            share, waited = min(1.0, 2 * share), 0
        sources, targets = matching.mutual()
        kept = generator.random(len(sources)) < share
        if kept.sum() < 2:
            kept[:] = True
        mapping = procrustes(source[sources[kept]], target[targets[kept]])
        progress(mapping)
    return best


def _sorted_similarities(vectors: Array) -> Array:
    """Rows of the square root of the Gram matrix, each sorted, normalised as the vectors are."""
    left, values, _ = np.linalg.svd(vectors, full_matrices=False)
    rows = np.sort((left * values) @ left.T, axis=1)
    rows = unit(rows)
    return unit(rows - rows.mean(axis=0, keepdims=True))
