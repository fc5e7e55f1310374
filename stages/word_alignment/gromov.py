"""Gromov-Wasserstein alignment (Alvarez-Melis & Jaakkola 2018, arXiv 1809.00013), by POT."""

from __future__ import annotations

import warnings

import numpy as np

from stages.base import StageError
from stages.word_alignment.linear import Array, procrustes
from stages.word_alignment.transport import pot

EPSILON = 5e-3  # of the entropy, for cosines
ITERATIONS = 200
LEAST_MASS = 0.5  # of a plan, which has 1 where it was found


def gromov_wasserstein(source: Array, target: Array) -> Array:
    """W from the plan between words [n, d] of both languages that best preserves the cosines within each language.

    Time and memory: O(n^3) and O(n^2). Raises StageError if the plan is not finite.
    """
    ot = pot()
    similarities = [np.asarray(words @ words.T, np.float64) for words in (source, target)]
    uniform = [np.full(len(words), 1 / len(words)) for words in (source, target)]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong is checked below
        plan = ot.gromov.entropic_gromov_wasserstein(
            *similarities, *uniform, "square_loss", epsilon=EPSILON, max_iter=ITERATIONS, tol=1e-7, solver="PPA"
        )
    if not np.isfinite(plan).all() or plan.sum() < LEAST_MASS:
        raise StageError(
            "Gromov-Wasserstein found no plan: its entropy is too small for these spaces; choose another method"
        )
    return procrustes(plan.T @ source * len(target), target)
