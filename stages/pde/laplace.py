"""The posterior of the parameters with the process integrated out by Laplace's approximation.

For parameters eta, z* is the maximum of the posterior over z, and

    log p(y | F = 0, eta) = -E(z*, eta) - 1/2 log |H| + 1/2 log |H0|

H is the Hessian over z with the data and H0 without them: the second determinant is that of p(F = 0 | eta). Both
together compare how much of what the constraint allows the data use up. A maximum over (z, eta) lacks them, and
prefers equations that allow more: without diffusion, for example, every place is independent of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from stages.pde import search
from stages.pde.problem import Problem, State

INNER_STEPS = 25
TOLERANCE = 1e-9
OUTER_STEPS = 15
ROUNDS = 2  # of the search, each from the field that the last one found
DIFFERENCE = 0.05  # of the outer gradient, relative to the scale of each parameter


@dataclass
class Profile:
    """Evaluates the approximation. Every evaluation starts from `reference`, so that its value has no history."""

    problem: Problem
    reference: State
    state: State  # of the last evaluation
    stopping: Callable[[], bool]

    def at(self, eta: Tensor, log_sigma: Tensor) -> float:
        """-log p(y | F = 0, eta, sigma) - log prior, up to constants."""
        sigma = self.reference.sigma.clone()
        sigma[self.observed] = log_sigma.exp()
        problem, state = self.problem, replace(self.reference, eta=eta, sigma=sigma)
        problem.refresh(state.z, eta)
        state, energy, hessian = inner(problem, state, self.stopping)
        self.state = state
        _, _, curvature = problem.data_terms(state)
        without = hessian - curvature + problem.edge_curvature()
        return energy + 0.5 * _log_determinant(hessian) - 0.5 * _log_determinant(without)

    @property
    def observed(self) -> list[int]:
        return [index for index, one in enumerate(self.problem.data) if one is not None]


def inner(problem: Problem, state: State, stopping: Callable[[], bool]) -> tuple[State, float, Tensor]:
    """The maximum over z, -log posterior there, and its Hessian over z."""
    m, damping = problem.size, 1e-6
    value, gradient, hessian = search.quadratic(problem, state)
    for _ in range(INNER_STEPS):
        if stopping():
            raise StopIteration
        while damping < 1e8:
            raised = hessian[:m, :m] + torch.diag(damping * hessian.diagonal()[:m])
            step = torch.cholesky_solve(-gradient[:m, None], search.factor(raised))[:, 0]
            trial = replace(state, z=state.z + step)
            moved = float(problem.energy(trial.z, trial.eta, trial.sigma))
            if math.isfinite(moved) and moved <= value + 1e-9 * abs(value):
                break
            damping *= 10
        else:
            break
        change, state, damping = value - moved, trial, max(damping / 10, 1e-12)
        value, gradient, hessian = search.quadratic(problem, state)
        if change < TOLERANCE * max(1.0, abs(value)):
            break
    return state, value, hessian[:m, :m]


def maximum(problem: Problem, start: State, scale: Tensor, stopping: Callable[[], bool]) -> tuple[State, Tensor, float]:
    """The maximum over (eta, log sigma) with its z; the precision of (eta, log sigma); -log posterior.

    `scale`: a rough standard deviation of eta and log sigma, in which the search is well conditioned.
    """
    profile = Profile(problem, start, start, stopping)
    p = len(start.eta)
    centre = torch.cat([start.eta, start.sigma[profile.observed].log()])

    def objective(s: NDArray[np.float64]) -> float:
        x = centre + scale * torch.from_numpy(s)
        try:
            value = profile.at(x[:p], x[p:])
        except ArithmeticError:
            return 1e10
        return value if math.isfinite(value) else 1e10

    for _ in range(ROUNDS):
        found = minimize(
            objective,
            np.zeros(len(centre)),
            method="L-BFGS-B",
            bounds=[(-20.0, 20.0)] * len(centre),
            options={"maxiter": OUTER_STEPS, "eps": DIFFERENCE, "ftol": 1e-9},
        )
        objective(np.asarray(found.x))
        centre = centre + scale * torch.from_numpy(np.asarray(found.x))
        profile.reference = profile.state
    s, step = np.zeros(len(centre)), 0.3
    value = objective(s)
    hessian = np.zeros((len(s), len(s)))
    sides = {(i, sign): objective(s + sign * step * np.eye(len(s))[i]) for i in range(len(s)) for sign in (-1, 1)}
    for i in range(len(s)):
        hessian[i, i] = (sides[i, 1] + sides[i, -1] - 2 * value) / step**2
        for j in range(i):
            both = objective(s + step * (np.eye(len(s))[i] + np.eye(len(s))[j]))
            hessian[i, j] = hessian[j, i] = (both - sides[i, 1] - sides[j, 1] + value) / step**2
    objective(s)  # z of the maximum
    precision = torch.from_numpy(hessian) / (scale[:, None] * scale[None, :])
    return profile.state, precision, value


def _log_determinant(matrix: Tensor) -> float:
    return 2 * float(search.factor(matrix).diagonal().log().sum())
