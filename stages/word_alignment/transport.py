"""Optimal transport between two weighted sets of points, by POT."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import cast

import numpy as np

from stages.base import StageError
from stages.word_alignment.linear import Array

SINKHORN_ITERATIONS = 1000
TOLERANCE = 1e-6  # of the marginals, which add up to 1


def pot() -> ModuleType:
    """The module `ot` of POT, which is an optional dependency. Raises StageError where it is absent."""
    try:
        import ot
    except ModuleNotFoundError:
        raise StageError(
            "aligning words needs POT (Python Optimal Transport), which is not installed: "
            "install bloomline[word_alignment]"
        ) from None
    return cast("ModuleType", ot)


def squared_distances(source: Array, target: Array) -> Array:
    """|x - y|^2 of every pair of rows [n, d] and [m, d], as float64 [n, m]."""
    products = source.astype(np.float64) @ target.T.astype(np.float64)
    squares = [np.einsum("ij,ij->i", rows, rows, dtype=np.float64) for rows in (source, target)]
    return np.asarray(np.maximum(squares[0][:, None] + squares[1] - 2 * products, 0))


def entropic_plan(
    source_weights: Array, target_weights: Array, costs: Array, epsilon: float, relaxation: float | None = None
) -> Array:
    """The plan [n, m] that minimises <plan, costs> minus `epsilon` times its entropy (Cuturi 2013, arXiv 1306.0895).

    Its marginals are the weights, or with `relaxation` are held to them by that multiple of the KL divergence
    (Chizat et al. 2018, arXiv 1607.05816). Raises StageError if the plan is not finite: `epsilon` is too small.
    """
    ot = pot()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong is checked below
        if relaxation is None:
            # Adding a constant to a row or a column changes the optimum's cost, not the plan, and prevents underflow.
            shifted = costs - costs.min(axis=1, keepdims=True)
            shifted -= shifted.min(axis=0, keepdims=True)
            plan = ot.sinkhorn(
                source_weights,
                target_weights,
                shifted,
                epsilon,
                numItermax=SINKHORN_ITERATIONS,
                stopThr=TOLERANCE,
                warn=False,
            )
        else:
            plan = ot.unbalanced.sinkhorn_unbalanced(
                source_weights,
                target_weights,
                costs,
                epsilon,
                relaxation,
                numItermax=SINKHORN_ITERATIONS,
                stopThr=TOLERANCE,
            )
    if not np.isfinite(plan).all() or plan.sum() <= 0:
        raise StageError(f"the transport plan is not finite with epsilon {epsilon:g}: raise epsilon")
    return np.asarray(plan)
