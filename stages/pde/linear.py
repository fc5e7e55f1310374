"""Linear equations: the process is integrated out exactly.

Given eta and sigma, F = B z + b, and everything is Gaussian in z. The likelihood of the parameters is that of the data
given that the constraint holds, p(y | F = 0, eta) = p(y, F = 0 | eta) / p(F = 0 | eta): the second factor alone prefers
equations with small coefficients, whatever the data are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stages.pde.problem import Problem
from stages.pde.search import factor
from stages.pde.symbols import evaluate

LONGEST_STEP = 1.5  # of a parameter on its unconstrained scale, or of the logarithm of the noise


@dataclass(frozen=True)
class Products:
    """Of coefficients that do not depend on the place: B'B/C is the sum over `pairs` (equation, derivative, derivative)
    of both coefficients' product times a constant matrix, `matrices` [pairs, M * M]. `sums` [M]: of the functions over
    the grid, divided by C, by equation and derivative."""

    pairs: list[tuple[int, Any, Any]]
    matrices: Tensor
    sums: dict[tuple[int, Any], Tensor]


class Marginal:
    """log p(y | F = 0, eta, sigma) of a linear problem, differentiable. C is that of the problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.observed = [index for index, one in enumerate(problem.data) if one is not None]
        coordinates = set(problem.system.symbols.coordinates.values())
        slopes = [one for slopes in problem.system.by_derivative for one in slopes.values()]
        self.products: Products | None = None
        if not any(one.free_symbols & coordinates for one in slopes):
            self.products = self._products()
        self.constants = {
            symbol: _tensor(problem.bases[problem.part(symbol)[0]].constant(one.orders))
            for symbol, one in problem.system.derivatives.items()
        }  # the derivatives where z is 0
        self.curvatures, self.rights = {}, {}
        for index in self.observed:
            one = problem.data[index]
            assert one is not None
            difference = one.values - problem.bases[index].mean
            self.curvatures[index] = one.functions.T @ one.functions
            self.rights[index] = one.functions.T @ difference
        self.edge_curvature = problem.edge_curvature()
        self.edge_right = torch.zeros(problem.size, dtype=torch.float64)
        for edge in problem.edges:
            place = slice(problem.offsets[edge.component], problem.offsets[edge.component + 1])
            self.edge_right[place] += edge.functions.T @ edge.values / edge.sd**2

    def _products(self) -> Products:
        problem = self.problem
        pairs, matrices, sums = [], [], {}
        for number, slopes in enumerate(problem.system.by_derivative):
            weight = 1 / (problem.variances[number] * problem.temper)
            for first, a in enumerate(slopes):
                sums[number, a] = self._padded(a, weight @ problem.constraint[a])
                for b in list(slopes)[first:]:
                    (_, rows), (_, columns) = problem.part(a), problem.part(b)
                    block = problem.constraint[a].T @ (problem.constraint[b] * weight[:, None])
                    whole = torch.zeros((problem.size, problem.size), dtype=torch.float64)
                    whole[rows, columns] += block
                    if a != b:
                        whole[columns, rows] += block.T
                    pairs.append((number, a, b))
                    matrices.append(whole.flatten())
        return Products(pairs, torch.stack(matrices), sums)

    def prior(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        """Of z given F = 0, without data: precision [M, M], and precision times mean [M]."""
        problem, n = self.problem, len(self.problem.grid)
        precision = torch.eye(problem.size, dtype=torch.float64) / problem.temper + self.edge_curvature
        right = self.edge_right.clone()
        values = problem.system.values(self.constants, problem.grid, problem.parameters.constrained(eta))
        coefficients = [
            {one: _tensor(evaluate(slope, values, torch)) for one, slope in slopes.items()}
            for slopes in problem.system.by_derivative
        ]
        if self.products is not None:
            factors = torch.stack([coefficients[number][a] * coefficients[number][b]
                                   for number, a, b in self.products.pairs])  # fmt: skip
            precision = precision + (factors @ self.products.matrices).view(problem.size, problem.size)
        for number, slopes in enumerate(coefficients):
            free = _tensor(problem.system.residual(number, values, torch))
            if self.products is not None and free.ndim == 0:
                for one, coefficient in slopes.items():
                    right = right - coefficient * free * self.products.sums[number, one]
                continue
            weight = 1 / (problem.variances[number] * problem.temper)
            if self.products is None:
                matrix = torch.zeros((n, problem.size), dtype=torch.float64)
                for one, coefficient in slopes.items():
                    matrix = matrix + self._padded(one, coefficient.expand(n)[:, None] * problem.constraint[one])
                precision = precision + matrix.T @ (matrix * weight[:, None])
                right = right - matrix.T @ (weight * free)
            else:
                for one, coefficient in slopes.items():
                    right = right - self._padded(one, coefficient * ((weight * free) @ problem.constraint[one]))
        return precision, right

    def _padded(self, derivative: Any, values: Tensor) -> Tensor:
        """Values [..., M of the derivative's component] with zeros for the other components [..., M]."""
        _, place = self.problem.part(derivative)
        return torch.nn.functional.pad(values, (place.start, self.problem.size - place.stop))

    def log_likelihood(self, eta: Tensor, log_sigma: Tensor) -> Tensor:
        """`log_sigma` of the observed components, in their order."""
        precision, right = self.prior(eta)
        value = -_log_integral(precision, right)
        for place, index in enumerate(self.observed):
            one = self.problem.data[index]
            assert one is not None
            weight = (-2 * log_sigma[place]).exp()
            span = slice(self.problem.offsets[index], self.problem.offsets[index + 1])
            pad = (span.start, self.problem.size - span.stop)
            precision = precision + torch.nn.functional.pad(self.curvatures[index] * weight, pad + pad)
            right = right + torch.nn.functional.pad(self.rights[index] * weight, pad)
            squares = (one.values - self.problem.bases[index].mean).square().sum()
            value = value - 0.5 * weight * squares - len(one.values) * (log_sigma[place] + 0.5 * math.log(2 * math.pi))
        return value + _log_integral(precision, right)

    def log_posterior(self, x: Tensor) -> Tensor:
        """Of x = (eta, log sigma of the observed components); flat in log sigma."""
        eta, log_sigma = x[: len(self.problem.parameters.names)], x[len(self.problem.parameters.names) :]
        return self.log_likelihood(eta, log_sigma) + self.problem.parameters.log_prior(eta)

    def mean(self, x: Tensor) -> Tensor:
        """The mean of z given the data, the constraint, and x."""
        return self._given(x)[0]

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """z given the data, the constraint, and x."""
        mean, lower = self._given(x)
        noise = torch.randn((len(mean), 1), generator=generator, dtype=torch.float64)
        drawn: Tensor = mean + torch.linalg.solve_triangular(lower.T, noise, upper=True)[:, 0]
        return drawn

    def _given(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of z given the data, the constraint, and x, and the factor of its precision."""
        eta, log_sigma = x[: len(self.problem.parameters.names)], x[len(self.problem.parameters.names) :]
        precision, right = self.prior(eta)
        for place, index in enumerate(self.observed):
            span = slice(self.problem.offsets[index], self.problem.offsets[index + 1])
            weight = (-2 * log_sigma[place]).exp()
            precision[span, span] += self.curvatures[index] * weight
            right[span] += self.rights[index] * weight
        lower = factor(precision)
        mean: Tensor = torch.cholesky_solve(right[:, None], lower)[:, 0]
        return mean, lower


def maximum(marginal: Marginal, start: Tensor) -> tuple[Tensor, Tensor, float]:
    """The maximum x of the marginal posterior, its precision there, and its value: Newton's method."""
    x = start.clone()
    value = float(marginal.log_posterior(x))
    for _ in range(30):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(marginal.log_posterior(leaf), leaf)
        precision = -_hessian(marginal, x)
        eigenvalues, vectors = torch.linalg.eigh(precision)
        step = vectors @ ((vectors.T @ gradient) / eigenvalues.abs().clamp(min=1e-6))
        step, size = step * min(1.0, LONGEST_STEP / float(step.abs().max())), 1.0  # a direction that still ascends
        while (moved := float(marginal.log_posterior(x + size * step))) < value and size > 1e-4:
            size /= 2
        if moved <= value + 1e-8:
            break
        x, value = x + size * step, moved
    return x, -_hessian(marginal, x), value


def _hessian(marginal: Marginal, x: Tensor) -> Tensor:
    """The second derivatives, by central differences of the exact gradient."""
    rows = []
    for place in range(len(x)):
        sides = []
        for sign in (-1.0, 1.0):
            leaf = x.clone()
            leaf[place] += sign * 1e-4
            leaf.requires_grad_()
            sides.append(torch.autograd.grad(marginal.log_posterior(leaf), leaf)[0])
        rows.append((sides[1] - sides[0]) / 2e-4)
    found = torch.stack(rows)
    return (found + found.T) / 2


class _LogIntegral(torch.autograd.Function):
    """log of the integral of exp(-z'Pz/2 + r'z), without the constant in the number of dimensions.

    Its slopes are -(P^-1 + mm')/2 and m, the mean P^-1 r: one inverse, in place of the derivatives of a Cholesky
    factor, which take several times as long.
    """

    @staticmethod
    def forward(ctx: Any, precision: Tensor, right: Tensor) -> Tensor:
        lower = torch.linalg.cholesky(precision + torch.diag(1e-10 * precision.diagonal()))
        mean = torch.cholesky_solve(right[:, None], lower)[:, 0]
        ctx.save_for_backward(lower, mean)
        value: Tensor = 0.5 * right @ mean - lower.diagonal().log().sum()
        return value

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor]:
        (slope,), (lower, mean) = slopes, ctx.saved_tensors
        return torch.cholesky_inverse(lower).addr(mean, mean).mul(-0.5 * slope), slope * mean


def _log_integral(precision: Tensor, right: Tensor) -> Tensor:
    value: Tensor = _LogIntegral.apply(precision, right)  # type: ignore[no-untyped-call]
    return value


def _tensor(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)
