"""From a problem to its mode, its normal approximation and the density that chains sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from stages.pde import linear, search
from stages.pde.problem import Problem, State


@dataclass(frozen=True)
class Mode:
    """The maximum of the sampled density and its precision there.

    x is (eta, log sigma) of a linear problem, from which z was integrated out, and (z, eta, log sigma) of another; sigma
    of the observed components. `volume` is the slope that corrects the density for the volume of the constraint.
    """

    problem: Problem
    state: State
    x: Tensor
    precision: Tensor
    volume: Tensor
    log_evidence: float

    @property
    def observed(self) -> list[int]:
        return [index for index, one in enumerate(self.problem.data) if one is not None]

    @property
    def linear(self) -> bool:
        return self.problem.system.linear

    @property
    def eta_place(self) -> slice:
        first = 0 if self.linear else self.problem.size
        return slice(first, first + len(self.problem.parameters.names))

    @cached_property
    def marginal(self) -> linear.Marginal:
        return linear.Marginal(self.problem)

    @cached_property
    def lower(self) -> Tensor:
        return search.factor(self.precision)

    def from_white(self, s: Tensor) -> Tensor:
        """x of coordinates in which the density is near a standard normal one."""
        return self.x + torch.linalg.solve_triangular(self.lower.T, s[:, None], upper=True)[:, 0]

    def log_density(self, x: Tensor) -> Tensor:
        """Log posterior, up to a constant."""
        if self.linear:
            return self.marginal.log_posterior(x)
        eta = x[self.eta_place]
        logs = x[self.eta_place.stop :]
        sigma = torch.ones(len(self.problem.data), dtype=torch.float64)
        sigma = sigma.index_put((torch.tensor(self.observed),), logs.exp())
        energy = self.problem.energy(x[: self.problem.size], eta, sigma)
        return self.volume @ (eta - self.state.eta) - energy

    def coefficients(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """z of a sample, drawn where it was integrated out."""
        return self.marginal.draw(x, generator) if self.linear else x[: self.problem.size]


def find(problem: Problem, start: State, stopping: Callable[[], bool]) -> Mode:
    """The mode. Raises StopIteration once `stopping`, ArithmeticError if the posterior cannot be evaluated."""
    estimate = search.maximum(problem, start, stopping)
    state = estimate.state
    observed = [index for index, one in enumerate(problem.data) if one is not None]
    logs = state.sigma[observed].log()
    size, p = problem.size, len(state.eta)
    if problem.system.linear:
        marginal = linear.Marginal(problem)
        if not any(one is not None and one.censored.any() for one in problem.data):
            x, precision, value = linear.maximum(marginal, torch.cat([state.eta, logs]))
            state = State(state.z, x[:p], state.sigma.index_put((torch.tensor(observed),), x[p:].exp()))
            evidence = value + _prior_constant(problem) + 0.5 * (p + len(logs)) * math.log(2 * math.pi)
            evidence -= 0.5 * float(torch.linalg.slogdet(precision)[1])
            return Mode(problem, state, x, precision, torch.zeros(p, dtype=torch.float64), evidence)
    before, after = _volume(problem, state, False), _volume(problem, state, True)
    covariance = torch.cholesky_inverse(search.factor(estimate.precision))
    # Laplace's approximation of the integral over z moves the maximum over eta a little; z follows.
    shift = covariance[:, size:] @ torch.linalg.solve(
        covariance[size:, size:], covariance[size:, size:] @ (before[1] - after[1])
    )
    limit = covariance.diagonal().sqrt()
    shift = shift.clamp(-limit, limit)
    state = State(state.z + shift[:size], state.eta + shift[size:], state.sigma)
    precision = torch.block_diag(
        estimate.precision,
        torch.diag(torch.tensor([2.0 * _count(problem, index) for index in observed], dtype=torch.float64)),
    )
    energy = float(problem.energy(state.z, state.eta, state.sigma))
    evidence = -energy - 0.5 * _log_determinant(estimate.precision) + float(before[0]) + 0.5 * p * math.log(2 * math.pi)
    evidence += _prior_constant(problem) - 0.5 * sum(_count(problem, one) for one in observed) * math.log(2 * math.pi)
    return Mode(problem, state, torch.cat([state.z, state.eta, logs]), precision, before[1], evidence)


def _count(problem: Problem, index: int) -> int:
    one = problem.data[index]
    return 0 if one is None else int((~one.censored).sum())


def _volume(problem: Problem, state: State, with_data: bool) -> tuple[Tensor, Tensor]:
    """1/2 log |precision of z given eta|, without or with the data, and its slope along eta at a fixed z."""
    eta = state.eta.clone().requires_grad_()
    _, by_z, _ = problem.linearised(state.z, eta)
    weight = 1 / (problem.variances * problem.temper)
    precision = torch.eye(problem.size, dtype=torch.float64) / problem.temper
    precision = precision + sum((one.T @ (one * each[:, None]) for one, each in zip(by_z, weight, strict=True)), torch.zeros(()))
    if with_data:
        precision = precision + problem.data_terms(state)[2]
    else:
        for edge in problem.edges:
            place = slice(problem.offsets[edge.component], problem.offsets[edge.component + 1])
            precision[place, place] += edge.functions.T @ edge.functions / edge.sd**2
    half = torch.linalg.cholesky(precision + torch.diag(1e-10 * precision.diagonal())).diagonal().log().sum()
    (slope,) = torch.autograd.grad(half, eta)
    return half.detach(), slope


def _log_determinant(precision: Tensor) -> float:
    return 2 * float(search.factor(precision).diagonal().log().sum())


def _prior_constant(problem: Problem) -> float:
    """What the log prior of eta leaves out."""
    return -sum(
        math.log(one.parsed.second) + 0.5 * math.log(2 * math.pi)
        for one in problem.parameters.priors.values()
        if one.parsed.kind != "uniform"
    )
