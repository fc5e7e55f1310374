"""The posterior of the parameters with the process integrated out by Laplace's approximation.

For parameters eta and noise sigma, z* is the maximum of the posterior over z, and

    log p(y | F = 0, eta, sigma) = -E(z*, eta, sigma) - 1/2 log |H| + 1/2 log |H0|

H is the Gauss-Newton Hessian over z with the data and H0 without them: the second determinant is that of
p(F = 0 | eta). Both together compare how much of what the constraint allows the data use up. A maximum over (z, eta)
lacks them, and prefers equations that allow more: without diffusion, for example, every place is independent of the
others.

z* is found by a trust-region Newton method with conjugate gradients, whose products with the exact Hessian cost as
much as a gradient, in coordinates whitened by the last factor of H. The gradient over (eta, log sigma) is exact: the
direct part, and the part through z* by the implicit function theorem. The variances C are held during a search.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import BFGS, minimize
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

from stages.pde.problem import Problem, State, likelihood
from stages.pde.search import factor
from stages.pde.symbols import evaluate

INNER_STEPS = 100
INNER_TOLERANCE = 1e-5  # of the gradient, in whitened coordinates: in units of standard deviations of z
OUTER_STEPS = 40
OUTER_TOLERANCE = 0.01  # of the gradient of the log posterior, in rough standard deviations
LONGEST_STEP = 3.0  # of a parameter on its unconstrained scale, from the best ones: where a component is hidden, the
# search tries parameters at which no field satisfies the equation, and finding z takes a minute there
ROUNDS = 3  # of the search, each with the variances C at the result of the last one
SETTLED = 0.1  # a round that moves by fewer deviations is the last one
DIFFERENCE = 0.1  # of the second derivatives, in rough standard deviations

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Slope:
    """The gradient of half a log determinant over z, eta and the log sigma of all components."""

    z: Tensor
    eta: Tensor
    log_sigma: Tensor


@dataclass
class Profile:
    """Evaluates the approximation, from the best state that it has seen; `lower` is the factor of H there."""

    problem: Problem
    state: State
    stopping: Callable[[], bool]
    lower: Tensor | None = None
    best: float = math.inf

    @property
    def observed(self) -> list[int]:
        return self.problem.observed

    def at(self, x: Tensor) -> tuple[float, Tensor]:
        """-log p(y | F = 0, eta, sigma) - log prior, up to constants, and its gradient over x = (eta, log sigma of the
        observed components). Raises ArithmeticError where it is not finite."""
        problem, p = self.problem, len(self.state.eta)
        sigma = self.state.sigma.index_put((torch.tensor(self.observed),), x[p:].exp())
        state = replace(self.state, eta=x[:p], sigma=sigma)
        lower = self.lower
        if lower is None:
            lower = factor(constraint_curvature(problem, state) + _data(problem, state))
        state = mode(problem, state, lower, self.stopping)
        without = constraint_curvature(problem, state)
        lower, lower_without = factor(without + _data(problem, state)), factor(without)
        value = float(problem.energy(state.z, state.eta, state.sigma))
        value += float(lower.diagonal().log().sum() - lower_without.diagonal().log().sum())
        if not math.isfinite(value):
            raise ArithmeticError("the posterior is not finite")
        if value < self.best:
            self.state, self.lower, self.best = state, lower, value
        above = slope(problem, state, lower, data=True)
        below = slope(problem, state, lower_without, data=False)
        direct = torch.cat([above.eta - below.eta, (above.log_sigma - below.log_sigma)[self.observed]])
        return value, direct + self._through(state, lower, above.z - below.z)

    def _through(self, state: State, lower: Tensor, by_z: Tensor) -> Tensor:
        """The gradient of the energy over x at z*, and that of the determinants through z*: -E_xz E_zz^-1 by_z."""
        z, eta = state.z.clone().requires_grad_(), state.eta.clone().requires_grad_()
        logs = state.sigma.log().requires_grad_()
        energy = self.problem.energy(z, eta, logs.exp())
        along, *own = torch.autograd.grad(energy, [z, eta, logs], create_graph=True)

        def product(v: Array) -> Array:
            (found,) = torch.autograd.grad(along @ _unwhitened(lower, v), z, retain_graph=True)
            return _whitened(lower, found)

        operator = LinearOperator((len(z), len(z)), matvec=product, dtype=np.float64)
        solved, _ = cg(operator, _whitened(lower, by_z), rtol=1e-6, maxiter=60)
        cross = torch.autograd.grad(along @ _unwhitened(lower, solved), [eta, logs], allow_unused=True)
        parts = [
            one.detach() - (torch.zeros_like(one) if other is None else other)
            for one, other in zip(own, cross, strict=True)
        ]
        return torch.cat([parts[0], parts[1][self.observed]])


def mode(problem: Problem, state: State, lower: Tensor, stopping: Callable[[], bool]) -> State:
    """The state with the z of the highest posterior density, given its eta and sigma. Raises StopIteration."""

    def at(s: Array) -> tuple[float, Array]:
        if stopping():
            raise StopIteration
        value, slope, _ = _gradient(problem, state, state.z + _unwhitened(lower, s))
        if not math.isfinite(value):
            return 1e300, np.zeros(len(s))
        return value, _whitened(lower, slope.detach())

    graph: tuple[Array, Tensor, Tensor] | None = None  # of the gradient at the last place of a product

    def product(s: Array, v: Array) -> Array:
        nonlocal graph
        if graph is None or not np.array_equal(graph[0], s):
            graph = (s.copy(), *_gradient(problem, state, state.z + _unwhitened(lower, s))[1:])
        _, slope, z = graph
        (found,) = torch.autograd.grad(slope @ _unwhitened(lower, v), z, retain_graph=True)
        return _whitened(lower, found)

    found = minimize(
        at, np.zeros(problem.size), jac=True, hessp=product, method="trust-ncg",
        options={"gtol": INNER_TOLERANCE, "maxiter": INNER_STEPS, "initial_trust_radius": 3.0, "max_trust_radius": 1e3},
    )  # fmt: skip
    return replace(state, z=state.z + _unwhitened(lower, found.x))


def maximum(problem: Problem, start: State, scale: Tensor, stopping: Callable[[], bool]) -> tuple[State, Tensor, float]:
    """The maximum over (eta, log sigma) with its z; the precision of (eta, log sigma); -log posterior.

    `scale`: a rough standard deviation of eta and log sigma, in which the search is well conditioned.
    """
    profile = Profile(problem, start, stopping)
    p = len(start.eta)
    centre = torch.cat([start.eta, start.sigma[profile.observed].log()])
    longest = LONGEST_STEP if problem.hidden else math.inf

    def objective(s: Array) -> tuple[float, Array]:
        x = centre + scale * torch.from_numpy(s)
        try:
            if float((x[:p] - profile.state.eta).abs().max()) > longest:
                raise ArithmeticError("too far from the best state")
            value, gradient = profile.at(x)
        except ArithmeticError:
            return 1e10, np.zeros(len(s))
        return value, (gradient * scale).numpy()

    for _ in range(ROUNDS):
        problem.refresh(profile.state.z, centre[:p])
        profile.best = math.inf
        found = minimize(
            objective, np.zeros(len(centre)), jac=True, method="trust-constr", hess=BFGS(init_scale=1.0),
            options={"maxiter": OUTER_STEPS, "gtol": OUTER_TOLERANCE, "xtol": 1e-3, "initial_tr_radius": 1.0},
        )  # fmt: skip
        centre = centre + scale * torch.from_numpy(found.x)
        if np.abs(found.x).max() < SETTLED:
            break
    rows = []
    for place in range(len(centre)):
        sides = [objective(sign * DIFFERENCE * np.eye(len(centre))[place])[1] for sign in (1, -1)]
        rows.append((sides[0] - sides[1]) / (2 * DIFFERENCE))
    profile.best = math.inf
    value, _ = objective(np.zeros(len(centre)))  # z of the maximum
    hessian = torch.from_numpy(np.stack(rows))
    return profile.state, (hessian + hessian.T) / 2 / (scale[:, None] * scale[None, :]), value


def constraint_curvature(problem: Problem, state: State) -> Tensor:
    """H0: the Gauss-Newton Hessian over z of prior, constraint and boundary values [M, M]."""
    _, by_z, _ = problem.linearised(state.z, state.eta)
    found = problem.edge_curvature()
    found.diagonal()[:] += 1 / problem.temper
    for one, variance in zip(by_z, problem.variances, strict=True):
        found += one.T @ (one / (variance * problem.temper)[:, None])
    return found


def slope(problem: Problem, state: State, lower: Tensor, *, data: bool) -> Slope:
    """The gradient of 1/2 log |H|, or without `data` of 1/2 log |H0|, whose factor is `lower`.

    With H = ... + J'WJ it is tr(H^-1 J'W dJ). J is made of products of a coefficient at each point and functions that
    do not change, so that only the coefficients have to be differentiated.
    """
    inverse = torch.cholesky_inverse(lower)
    z, eta = state.z.clone().requires_grad_(), state.eta.clone().requires_grad_()
    logs = state.sigma.log().requires_grad_()
    _, by_z, _ = problem.linearised(state.z, state.eta)
    values, n = problem.values(z, eta), len(problem.grid)
    total = 0.0 * (z.sum() + eta.sum() + logs.sum())
    for number, slopes in enumerate(problem.system.by_derivative):
        weighted = (by_z[number] @ inverse) / (problem.variances[number] * problem.temper)[:, None]
        for symbol, expression in slopes.items():
            _, place = problem.part(symbol)
            coefficient = torch.as_tensor(evaluate(expression, values, torch), dtype=torch.float64).expand(n)
            total = total + coefficient @ (weighted[:, place] * problem.constraint[symbol]).sum(1)
    for index, one in enumerate(problem.data):
        if one is None or not data:
            continue
        place = slice(problem.offsets[index], problem.offsets[index + 1])
        variances = (one.functions @ inverse[place, place] * one.functions).sum(1)
        difference = one.functions @ z[place] + problem.bases[index].mean - one.values
        _, _, bend = likelihood(difference / logs[index].exp(), one.censored)
        total = total + 0.5 * (bend * variances).sum() * (-2 * logs[index]).exp()
    return Slope(*torch.autograd.grad(total, [z, eta, logs]))


def _data(problem: Problem, state: State) -> Tensor:
    """The curvature over z of the data [M, M]; boundary values are part of the constraint."""
    return problem.data_terms(state)[2] - problem.edge_curvature()


def _gradient(problem: Problem, state: State, z: Tensor) -> tuple[float, Tensor, Tensor]:
    z = z.detach().requires_grad_()
    value = problem.energy(z, state.eta, state.sigma)
    (found,) = torch.autograd.grad(value, z, create_graph=True)
    return float(value.detach()), found, z


def _whitened(lower: Tensor, gradient: Tensor) -> Array:
    found: Array = torch.linalg.solve_triangular(lower, gradient[:, None], upper=False)[:, 0].numpy()
    return found


def _unwhitened(lower: Tensor, s: Array) -> Tensor:
    found: Tensor = torch.linalg.solve_triangular(lower.T, torch.from_numpy(s)[:, None], upper=True)[:, 0]
    return found
