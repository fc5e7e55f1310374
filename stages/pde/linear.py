"""Linear equations: the process is integrated out exactly.

Given eta and sigma, F = B z + b, and everything is Gaussian in z. The likelihood of the parameters is that of the data
given that the constraint holds, p(y | F = 0, eta) = p(y, F = 0 | eta) / p(F = 0 | eta): the second factor alone prefers
equations with small coefficients, whatever the data are.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from stages.pde.problem import Problem
from stages.pde.search import factor
from stages.pde.symbols import evaluate


class Marginal:
    """log p(y | F = 0, eta, sigma) of a linear problem, differentiable. C is that of the problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.observed = [index for index, one in enumerate(problem.data) if one is not None]
        coordinates = set(problem.system.symbols.coordinates.values())
        slopes = [one for slopes in problem.system.by_derivative for one in slopes.values()]
        self.products: list[dict[tuple[Any, Any], Tensor]] | None = None
        if not any(one.free_symbols & coordinates for one in slopes):
            self.products = [self._products(number) for number in range(len(problem.system.residuals))]
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

    def _products(self, number: int) -> dict[tuple[Any, Any], Tensor]:
        problem = self.problem
        weight = 1 / (problem.variances[number] * problem.temper)
        symbols = list(problem.system.by_derivative[number])
        return {
            (a, b): problem.constraint[a].T @ (problem.constraint[b] * weight[:, None])
            for place, a in enumerate(symbols)
            for b in symbols[place:]
        }

    def prior(self, eta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of z given F = 0, without data: precision [M, M], precision times mean [M], and b'b / C."""
        problem = self.problem
        precision = torch.eye(problem.size, dtype=torch.float64) / problem.temper + self.edge_curvature
        right, constant = self.edge_right.clone(), torch.zeros((), dtype=torch.float64)
        values = problem.values(torch.zeros(problem.size, dtype=torch.float64), eta)
        n = len(problem.grid)
        for number, slopes in enumerate(problem.system.by_derivative):
            weight = 1 / (problem.variances[number] * problem.temper)
            free = torch.as_tensor(problem.system.residual(number, values, torch), dtype=torch.float64).expand(n)
            constant = constant + (free.square() * weight).sum()
            coefficients = {
                one: torch.as_tensor(evaluate(slope, values, torch), dtype=torch.float64)
                for one, slope in slopes.items()
            }
            if self.products is None:
                matrix = torch.zeros((n, problem.size), dtype=torch.float64)
                for one, coefficient in coefficients.items():
                    _, place = problem.part(one)
                    padded = torch.nn.functional.pad(
                        coefficient.expand(n)[:, None] * problem.constraint[one],
                        (place.start, problem.size - place.stop),
                    )
                    matrix = matrix + padded
                precision = precision + matrix.T @ (matrix * weight[:, None])
                right = right - matrix.T @ (weight * free)
                continue
            for one, coefficient in coefficients.items():
                _, place = problem.part(one)
                pad = (place.start, problem.size - place.stop)
                right = right - torch.nn.functional.pad(
                    coefficient * (problem.constraint[one].T @ (weight * free)), pad
                )
            for (one, other), product in self.products[number].items():
                (_, rows), (_, columns) = problem.part(one), problem.part(other)
                block = coefficients[one] * coefficients[other] * product
                around = (columns.start, problem.size - columns.stop, rows.start, problem.size - rows.stop)
                whole = torch.nn.functional.pad(block, around)
                precision = precision + (whole if one == other else whole + whole.T)
        return precision, right, constant

    def log_likelihood(self, eta: Tensor, log_sigma: Tensor) -> Tensor:
        """`log_sigma` of the observed components, in their order."""
        precision, right, _ = self.prior(eta)
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

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """z given the data, the constraint, and x."""
        eta, log_sigma = x[: len(self.problem.parameters.names)], x[len(self.problem.parameters.names) :]
        precision, right, _ = self.prior(eta)
        for place, index in enumerate(self.observed):
            span = slice(self.problem.offsets[index], self.problem.offsets[index + 1])
            weight = (-2 * log_sigma[place]).exp()
            precision[span, span] += self.curvatures[index] * weight
            right[span] += self.rights[index] * weight
        lower = factor(precision)
        mean = torch.cholesky_solve(right[:, None], lower)
        noise = torch.randn((len(right), 1), generator=generator, dtype=torch.float64)
        drawn: Tensor = mean + torch.linalg.solve_triangular(lower.T, noise, upper=True)
        return drawn[:, 0]


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
        step, size = step.clamp(-1.5, 1.5), 1.0
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


def _log_integral(precision: Tensor, right: Tensor) -> Tensor:
    """log of the integral of exp(-z'Pz/2 + r'z), without the constant in the number of dimensions."""
    lower = torch.linalg.cholesky(precision + torch.diag(1e-10 * precision.diagonal()))
    solved = torch.linalg.solve_triangular(lower, right[:, None], upper=False)
    value: Tensor = 0.5 * solved.square().sum() - lower.diagonal().log().sum()
    return value
