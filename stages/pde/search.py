"""The maximum of the posterior, and its curvature there.

Gauss-Newton with Levenberg-Marquardt damping on (z, eta), under a constraint that becomes tighter from stage to stage.
The noise is estimated with the degrees of freedom that the fit uses. Where the equations are linear, z is integrated
out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stages.pde.problem import Problem, State

SLACKS = (1e4, 1e2, 1.0)  # of the stages
STEPS = 40  # of each stage
TOLERANCE = 1e-7
JITTER = 1e-10


@dataclass(frozen=True)
class Estimate:
    """A maximum: the state, and the precision of (z, eta) there [M + p, M + p], in which z comes first."""

    state: State
    precision: Tensor
    energy: float
    freedom: float  # effective number of coefficients that the data determine


def maximum(problem: Problem, start: State, stopping: Callable[[], bool], slacks: Sequence[float] = SLACKS) -> Estimate:
    """The maximum of the posterior over z and eta. Raises StopIteration once `stopping`."""
    state = start
    found: Estimate | None = None
    for slack in slacks:
        problem.refresh(state.z, state.eta)
        found = _levenberg(problem, state, slack, stopping)
        state = replace(found.state, sigma=_noise(problem, found))
    for _ in range(2):  # C, the noise and the maximum depend on each other
        problem.refresh(state.z, state.eta)
        found = _levenberg(problem, state, slacks[-1], stopping)
        state = replace(found.state, sigma=_noise(problem, found))
    assert found is not None
    return replace(found, state=state)


def quadratic(problem: Problem, state: State, slack: float = 1.0) -> tuple[float, Tensor, Tensor]:
    """-log posterior at a state, its gradient and its Gauss-Newton Hessian over (z, eta)."""
    m, p = problem.size, len(state.eta)
    residuals, by_z, by_eta = problem.linearised(state.z, state.eta)
    weight = 1 / (problem.variances * problem.temper * slack)
    value, data_gradient, data_curvature = problem.data_terms(state)
    prior_gradient, prior_curvature = problem.parameters.prior_gradient(state.eta)
    gradient, hessian = torch.zeros(m + p, dtype=torch.float64), torch.zeros((m + p, m + p), dtype=torch.float64)
    gradient[:m], gradient[m:] = data_gradient + state.z / problem.temper, prior_gradient
    hessian[:m, :m] = data_curvature
    hessian.diagonal()[:m] += 1 / problem.temper
    hessian.diagonal()[m:] += prior_curvature
    for number in range(len(residuals)):
        slopes = torch.cat([by_z[number], by_eta[number]], dim=1)
        weighted = slopes * weight[number][:, None]
        gradient += weighted.T @ residuals[number]
        hessian += weighted.T @ slopes
    energy = value + 0.5 * state.z.square().sum() / problem.temper + 0.5 * (residuals.square() * weight).sum()
    return float(energy - problem.parameters.log_prior(state.eta)), gradient, hessian


def factor(matrix: Tensor) -> Tensor:
    """The Cholesky factor of a precision; the diagonal is raised as little as that needs."""
    jitter = JITTER
    while True:
        raised = matrix + torch.diag(jitter * matrix.diagonal().clamp(min=1e-300))
        lower: Tensor
        lower, info = torch.linalg.cholesky_ex(raised)
        if int(info) == 0:
            return lower
        jitter *= 10
        if jitter > 1e-2 or not math.isfinite(float(matrix.sum())):
            raise ArithmeticError("a precision matrix is not positive definite")


def _levenberg(problem: Problem, state: State, slack: float, stopping: Callable[[], bool]) -> Estimate:
    m, damping = problem.size, 1e-4
    value, gradient, hessian = quadratic(problem, state, slack)
    for _ in range(STEPS):
        if stopping():
            raise StopIteration
        scale = hessian.diagonal().clone()
        improved = False
        while damping < 1e8:
            step = torch.cholesky_solve(-gradient[:, None], factor(hessian + torch.diag(damping * scale)))[:, 0]
            trial = replace(state, z=state.z + step[:m], eta=state.eta + step[m:].clamp(-2, 2))
            moved = float(_energy(problem, trial, slack))
            if math.isfinite(moved) and moved <= value + 1e-9 * abs(value):
                improved = True
                break
            damping *= 10
        if not improved:
            break
        change = value - moved
        state, damping = trial, max(damping / 10, 1e-12)
        value, gradient, hessian = quadratic(problem, state, slack)
        if change < TOLERANCE * max(1.0, abs(value)):
            break
    return Estimate(state, hessian, value, _freedom(problem, state, hessian))


def _energy(problem: Problem, state: State, slack: float) -> Tensor:
    return problem.energy(state.z, state.eta, state.sigma, slack)


def _freedom(problem: Problem, state: State, hessian: Tensor) -> float:
    _, _, curvature = problem.data_terms(replace(state, z=state.z))
    m = problem.size
    covariance = torch.cholesky_inverse(factor(hessian))[:m, :m]
    return float((covariance * curvature).sum())


def _noise(problem: Problem, found: Estimate) -> Tensor:
    """The noise of every observed component, with the degrees of freedom of the fit taken off, as by REML."""
    covariance = torch.cholesky_inverse(factor(found.precision))
    sigma = found.state.sigma.clone()
    for index, one in enumerate(problem.data):
        if one is None:
            continue
        place = slice(problem.offsets[index], problem.offsets[index + 1])
        kept = one.functions[~one.censored]
        fitted = kept @ found.state.z[place] + problem.bases[index].mean
        squares = float((fitted - one.values[~one.censored]).square().sum())
        used = float((kept @ covariance[place, place] * kept).sum()) / float(sigma[index]) ** 2
        floor = 1e-6 * problem.bases[index].scale
        sigma[index] = max(math.sqrt(squares / max(len(kept) - used, 0.05 * len(kept))), floor)
    return sigma


def gradient_matching(problem: Problem, state: State) -> State:
    """The parameters that fit the derivatives of the smoothed data best: two-stage gradient matching."""
    best, start = state, state.eta
    problem.refresh(state.z, state.eta)
    values = []
    for shift in (0.0, -2.0, 2.0):
        eta, damping = start + shift, 1e-3
        weight = 1 / problem.variances

        def loss(eta: Tensor, weight: Tensor = weight) -> Tensor:
            return 0.5 * (problem.residuals(state.z, eta).square() * weight).sum() / len(problem.grid)

        value = float(loss(eta))
        for _ in range(60):
            residuals, _, by_eta = problem.linearised(state.z, eta)
            prior_gradient, prior_curvature = problem.parameters.prior_gradient(eta)
            weighted = by_eta * (weight / len(problem.grid))[..., None]
            gradient = (weighted * residuals[..., None]).sum((0, 1)) + 1e-6 * prior_gradient
            hessian = torch.einsum("enp,enq->pq", weighted, by_eta) + 1e-6 * torch.diag(prior_curvature)
            step = torch.linalg.solve(hessian + damping * torch.diag(hessian.diagonal() + 1e-12), -gradient)
            trial = eta + step.clamp(-1.0, 1.0) if not _real(problem) else eta + step
            moved = float(loss(trial))
            if math.isfinite(moved) and moved < value:
                done = value - moved < 1e-9 * value
                eta, value, damping = trial, moved, max(damping / 5, 1e-12)
                if done:
                    break
            else:
                damping *= 5
                if damping > 1e10:
                    break
        values.append((value, eta))
    finite = [one for one in values if math.isfinite(one[0])]
    if finite:
        best = replace(state, eta=min(finite, key=lambda one: one[0])[1])
    return best


def _real(problem: Problem) -> bool:
    return all(one.parsed.kind == "normal" for one in problem.parameters.priors.values())
