"""The curvature of the posterior at a state, and the parameters that a search starts from."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from stages.pde.problem import Problem, State

JITTER = 1e-10
MATCHING_SHIFTS = (0.0, -2.0, 2.0)  # of all parameters on their unconstrained scale, from their starts
MATCHING_STEPS = 40
LONGEST_STEP = 1.0  # of a parameter on its unconstrained scale
MATCHED = 0.01  # of the log posterior, that the last step gains


def quadratic(problem: Problem, state: State) -> tuple[float, Tensor, Tensor]:
    """-log posterior at a state, its gradient and its Gauss-Newton Hessian over (z, eta)."""
    m, p = problem.size, len(state.eta)
    residuals, by_z, by_eta = problem.linearised(state.z, state.eta)
    weight = 1 / (problem.variances * problem.temper)
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


def gradient_matching(problem: Problem, state: State) -> State:
    """The parameters that fit the derivatives of the smoothed data best: two-stage gradient matching."""
    best, start = state, state.eta
    problem.refresh(state.z, state.eta)
    fields = problem.values(state.z, state.eta)  # they stay while eta changes
    values = []
    for shift in (0.0, -2.0, 2.0):
        eta, damping = start + shift, 1e-3
        weight = 1 / problem.variances

        def loss(eta: Tensor, weight: Tensor = weight) -> Tensor:
            return 0.5 * (problem.by_parameters(fields, eta)[0].square() * weight).sum() / len(problem.grid)

        value = float(loss(eta))
        for _ in range(60):
            residuals, by_eta = problem.by_parameters(fields, eta)
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


def hidden_matching(problem: Problem, state: State) -> list[State]:
    """Parameters and hidden fields that together satisfy the equations, given the smoothed fields of the observed
    components: gradient matching in which a hidden component is solved for. One state for each of several starts."""
    m = problem.size
    free = torch.ones(m + len(state.eta), dtype=torch.bool)
    for index, one in enumerate(problem.data):
        free[problem.offsets[index] : problem.offsets[index + 1]] = one is None
    problem.refresh(state.z, state.eta)
    found = []
    for shift in MATCHING_SHIFTS:
        x, damping = torch.cat([state.z, state.eta + shift]), 1e-2
        value, gradient, hessian = quadratic(problem, replace(state, z=x[:m], eta=x[m:]))
        if not math.isfinite(value):
            continue
        for _ in range(MATCHING_STEPS):
            inner = hessian[free][:, free]
            raised = inner + damping * torch.diag(inner.diagonal())
            step = torch.cholesky_solve(-gradient[free, None], factor(raised))[:, 0]
            eta_step = step[-len(state.eta) :].abs().max()
            trial = x.clone()
            trial[free] += step * min(1.0, LONGEST_STEP / max(float(eta_step), 1e-300))
            moved, *slopes = quadratic(problem, replace(state, z=trial[:m], eta=trial[m:]))
            if math.isfinite(moved) and moved < value:
                done = value - moved < MATCHED
                x, value, (gradient, hessian), damping = trial, moved, slopes, max(damping / 5, 1e-9)
                if done:
                    break
            else:
                damping *= 5
                if damping > 1e6:
                    break
        found.append(replace(state, z=x[:m], eta=x[m:]))
    return found or [state]


def _real(problem: Problem) -> bool:
    return all(one.parsed.kind == "normal" for one in problem.parameters.priors.values())
