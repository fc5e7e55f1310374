"""Wasserstein-Procrustes, stochastic (Grave et al. 2018) and by quantization (qWP; Aboagye et al. 2022).

Minimises |X W - P Y|^2 over orthogonal W and transport plans P by turns: the plan between a sample of both languages
under the present W, then a gradient step on W for that plan, projected back onto the orthogonal matrices. The sample is
a few random words (WP), or k centroids that stand for all words (qWP).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stages.word_alignment.linear import Array, orthogonal
from stages.word_alignment.sampling import quantize
from stages.word_alignment.settings import Sampler
from stages.word_alignment.transport import entropic_plan, squared_distances

STEP_SIZE = 500.0  # of the gradient, for plans of mass 1: as Grave et al. (500 for a batch's sum, over its size)
EPOCHS = 5  # of the stochastic method


@dataclass(frozen=True)
class Quantization:
    """How each language is sampled for one transport plan, and how the plan is found."""

    centroids: int
    sampler: Sampler
    sample_words: int  # drawn before the centroids are chosen; 0: k^2 ln k, as in the paper
    epsilon: float
    relaxation: float | None  # None: balanced transport


def wasserstein_procrustes(
    source: Array,
    target: Array,
    start: Array,
    schedule: Sequence[tuple[int, Quantization]],
    generator: np.random.Generator,
    progress: Callable[[Array], None],
) -> Array:
    """W [d, d] for unit vectors [n, d] of both languages, from the orthogonal `start`.

    `schedule`: how many iterations to do with which quantization. `progress` is called with W after each of them.
    """
    mapping = start
    for iterations, quantization in schedule:
        for _ in range(iterations):
            source_points, source_weights = _sample(source, quantization, generator)
            target_points, target_weights = _sample(target, quantization, generator)
            costs = squared_distances(source_points @ mapping, target_points)
            plan = entropic_plan(source_weights, target_weights, costs, quantization.epsilon, quantization.relaxation)
            # Of -|X W - P Y|^2 / 2 without the term in W^T W, which is constant over orthogonal W.
            gradient = source_points.T @ (plan / plan.sum()) @ target_points
            mapping = orthogonal(mapping + STEP_SIZE * gradient)
            progress(mapping)
    return mapping


def stochastic_schedule(iterations: int, batch: int, most: int, epsilon: float) -> list[tuple[int, Quantization]]:
    """Batches of random words that double each epoch, up to `most`, for a quarter of the iterations each time."""
    return [
        (
            max(1, iterations // 4**epoch),
            Quantization(min(batch * 2**epoch, most), "random", most, epsilon, relaxation=None),
        )
        for epoch in range(EPOCHS)
    ]


def _sample(vectors: Array, settings: Quantization, generator: np.random.Generator) -> tuple[Array, Array]:
    size = settings.sample_words or math.ceil(settings.centroids**2 * math.log(max(2, settings.centroids)))
    if size < len(vectors) and settings.sampler != "random":
        vectors = vectors[generator.choice(len(vectors), size, replace=False)]
    return quantize(vectors, settings.centroids, settings.sampler, generator)
