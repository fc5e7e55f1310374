"""From a problem to its mode, its normal approximation and the density that chains sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from stages.pde import laplace, linear, search
from stages.pde.problem import Problem, State

ROUNDS = 3  # of the search of a linear problem, each with the variances C at the result of the last one


@dataclass(frozen=True)
class Mode:
    """The maximum of the sampled density and its precision there.

    x is (eta, log sigma) of a linear problem, from which z was integrated out, and (z, eta, log sigma) of another;
    sigma of the observed components. `volume` is the slope over (z, eta) that divides out the density of the constraint
    to first order around the mode.
    """

    problem: Problem
    state: State
    x: Tensor
    precision: Tensor
    volume: Tensor
    log_evidence: float

    @property
    def observed(self) -> list[int]:
        return self.problem.observed

    @cached_property
    def exact(self) -> bool:
        """Whether z is integrated out exactly."""
        return marginalises(self.problem)

    @property
    def eta_place(self) -> slice:
        first = 0 if self.exact else self.problem.size
        return slice(first, first + len(self.problem.parameters.names))

    @cached_property
    def marginal(self) -> linear.Marginal:
        return linear.Marginal(self.problem)

    @cached_property
    def lower(self) -> Tensor:
        return search.factor(self.precision)

    def from_white(self, s: Tensor) -> Tensor:
        """x of coordinates in which the density is near a standard normal one."""
        shift: Tensor = torch.linalg.solve_triangular(self.lower.T, s[:, None], upper=True)
        return self.x + shift[:, 0]

    def log_density(self, x: Tensor) -> Tensor:
        """Log posterior, up to a constant."""
        if self.exact:
            return self.marginal.log_posterior(x)
        eta = x[self.eta_place]
        logs = x[self.eta_place.stop :]
        sigma = torch.ones(len(self.problem.data), dtype=torch.float64)
        sigma = sigma.index_put((torch.tensor(self.observed),), logs.exp())
        energy = self.problem.energy(x[: self.problem.size], eta, sigma)
        return self.volume @ (x - self.x)[: len(self.volume)] - energy

    def coefficients(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """z of a sample, drawn where it was integrated out."""
        return self.marginal.draw(x, generator) if self.exact else x[: self.problem.size]


def find(problem: Problem, start: State, stopping: Callable[[], bool]) -> Mode:
    """The mode, searched from the z and eta of `start`.

    Raises StopIteration once `stopping`, ArithmeticError if the posterior cannot be evaluated.
    """
    observed, p = problem.observed, len(start.eta)
    if marginalises(problem):
        state = start
        for _ in range(ROUNDS):  # C and the maximum depend on each other
            if stopping():
                raise StopIteration
            problem.refresh(state.z, state.eta)
            marginal = linear.Marginal(problem)
            x, precision, value = linear.maximum(marginal, torch.cat([state.eta, state.sigma[observed].log()]))
            state = State(marginal.mean(x), x[:p], state.sigma.index_put((torch.tensor(observed),), x[p:].exp()))
        volume = torch.zeros(p, dtype=torch.float64)
        return Mode(problem, state, x, precision, volume, value + _evidence(problem, precision))
    problem.refresh(start.z, start.eta)
    _, _, hessian = search.quadratic(problem, start)
    start = laplace.mode(problem, start, search.factor(hessian[: problem.size, : problem.size]), stopping)
    _, _, hessian = search.quadratic(problem, start)
    deviations = torch.cholesky_inverse(search.factor(hessian)).diagonal()[problem.size :].sqrt().clamp(1e-3, 1.0)
    scale = torch.cat([deviations, torch.tensor([1 / math.sqrt(2 * _count(problem, one)) for one in observed])])
    state, outer, value = laplace.maximum(problem, start, scale.double(), stopping)
    outer = _positive(outer)
    _, _, hessian = search.quadratic(problem, state)
    x = torch.cat([state.z, state.eta, state.sigma[observed].log()])
    evidence = -value + _evidence(problem, outer)
    evidence -= 0.5 * sum(_count(problem, one) for one in observed) * math.log(2 * math.pi)
    allowed = laplace.slope(problem, state, search.factor(laplace.constraint_curvature(problem, state)), data=False)
    volume = torch.cat([allowed.z, allowed.eta])
    return Mode(problem, state, x, _joint(hessian, outer, problem.size), volume, evidence)


def log_posterior(problem: Problem, state: State, stopping: Callable[[], bool]) -> float:
    """The log posterior of the parameters and the noise of `state`, up to a constant, with z integrated out around it;
    -inf where it cannot be evaluated."""
    problem.refresh(state.z, state.eta)
    x = torch.cat([state.eta, state.sigma[problem.observed].log()])
    try:
        if marginalises(problem):
            return float(linear.Marginal(problem).log_posterior(x))
        return -laplace.Profile(problem, state, stopping).at(x)[0]
    except ArithmeticError:
        return -math.inf


def marginalises(problem: Problem) -> bool:
    """Whether z can be integrated out exactly: linear equations, and no censored value."""
    return problem.system.linear and not any(one is not None and bool(one.censored.any()) for one in problem.data)


def _joint(hessian: Tensor, outer: Tensor, size: int) -> Tensor:
    """The precision of (z, eta, log sigma) under which (eta, log sigma) has the precision `outer`, and z given them
    that of `hessian` [over z and eta]."""
    by_z, cross = hessian[:size, :size], hessian[:size, size:]
    explained = cross.T @ torch.cholesky_solve(cross, search.factor(by_z))
    found = torch.zeros((size + len(outer), size + len(outer)), dtype=torch.float64)
    found[:size, :size] = by_z
    p = cross.shape[1]
    found[:size, size : size + p], found[size : size + p, :size] = cross, cross.T
    found[size:, size:] = outer
    found[size : size + p, size : size + p] += explained
    return found


def _positive(matrix: Tensor) -> Tensor:
    """A symmetric matrix whose eigenvalues are raised where the approximation of it has negative ones."""
    eigenvalues, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    raised: Tensor = vectors @ torch.diag(eigenvalues.clamp(min=1e-3)) @ vectors.T
    return raised


def _count(problem: Problem, index: int) -> int:
    one = problem.data[index]
    return 0 if one is None else int((~one.censored).sum())


def _evidence(problem: Problem, precision: Tensor) -> float:
    """What Laplace's approximation over (eta, log sigma) adds to the log density at the maximum, for the evidence."""
    lost = sum(
        math.log(one.parsed.second) + 0.5 * math.log(2 * math.pi)
        for one in problem.parameters.priors.values()
        if one.parsed.kind != "uniform"
    )
    return 0.5 * len(precision) * math.log(2 * math.pi) - 0.5 * float(torch.linalg.slogdet(precision)[1]) - lost
