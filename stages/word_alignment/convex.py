"""The convex start of Wasserstein-Procrustes (Grave, Joulin & Berthet 2018, arXiv 1805.11222, section 4.3).

Over doubly stochastic matrices P instead of permutations, the distance |K_X P - P K_Y|^2 of the two Gram matrices is
convex; the Frank-Wolfe algorithm minimises it, with an entropic linear step.
"""

from __future__ import annotations

import numpy as np

from stages.word_alignment.linear import Array, procrustes
from stages.word_alignment.transport import entropic_plan

EPSILON = 0.05  # of the linear step, on plans whose entries are of order 1


def convex_start(source: Array, target: Array, iterations: int) -> Array:
    """An orthogonal W [d, d] for vectors [n, d] of both languages in the order of their frequency, unpaired.

    Time: O(n^2 (d + Sinkhorn iterations)) each iteration. Memory: a few matrices of n^2 float64.
    """
    n = len(source)
    x, y = _spectral_square_root(source), _spectral_square_root(target)
    x_gram, y_gram = x.T @ x, y.T @ y
    scale = np.linalg.norm(x_gram) / np.linalg.norm(y_gram)  # |x x^T| / |y y^T|
    y, y_gram = y * np.sqrt(scale), y_gram * scale
    ones = np.full(n, 1 / n)
    plan = np.full((n, n), 1 / n)  # rows: target words, columns: source words
    for iteration in range(iterations):
        # G = P K_X^2 + K_Y^2 P - 2 K_Y P K_X, with K_X = x x^T and K_Y = y y^T of rank d.
        plan_x, y_plan = plan @ x, y.T @ plan
        gradient = (plan_x @ x_gram - 2 * y @ (y_plan @ x)) @ x.T + y @ (y_gram @ y_plan)
        vertex = n * entropic_plan(ones, ones, gradient, EPSILON)
        rate = 2 / (2 + iteration)
        plan += rate * (vertex - plan)
    return procrustes(plan @ source, target)


def _spectral_square_root(vectors: Array) -> Array:
    """U sqrt(s) of the SVD of `vectors`, in float64: a flatter spectrum, so that the first directions dominate less."""
    left, values, _ = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
    return np.asarray(left * np.sqrt(values))
