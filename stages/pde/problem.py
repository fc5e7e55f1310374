"""The posterior of the parameters, of the process and of the noise, given data and the manifold constraint.

Unknown are eta (the parameters), z (the coefficients of every component's expansion) and the noise of each component.
With u = mean + Phi z, -log posterior is, up to constants,

    |z|^2 / 2 beta + sum_e sum_p F_e(p; z, eta)^2 / (2 beta C_e(p)) + data(y; u, sigma) + boundary - log prior(eta)

p runs over the grid of the constraint, and C_e is the variance of F_e that the expansion leaves out: that of its
derivatives between and beyond the kept modes. beta is the temper: constraint terms per observation. C is computed at an
estimate and then held, because -1/2 log C(eta) would prefer equations with small coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stages.pde.basis import Basis
from stages.pde.parameters import Parameters
from stages.pde.symbols import Expression, evaluate
from stages.pde.system import System

SLACK = 1e-3  # the smallest standard deviation of a residual, relative to the prior's of its terms


@dataclass(frozen=True)
class Data:
    """Observations of one component: functions [n, M] there, values [n], and which are at or below their limit."""

    functions: Tensor
    values: Tensor
    censored: Tensor


@dataclass(frozen=True)
class Edge:
    """Boundary values of one component: functions [n, M] (of a derivative, perhaps), values [n] and their sd."""

    component: int
    functions: Tensor
    values: Tensor
    sd: float


@dataclass(frozen=True)
class State:
    """An estimate: z [M of all components], eta [parameters], the noise's sd [components]."""

    z: Tensor
    eta: Tensor
    sigma: Tensor


@dataclass
class Problem:
    """Everything that the posterior needs. `constraint` [n, M of its component]: by derivative, on the grid."""

    system: System
    parameters: Parameters
    bases: Sequence[Basis]
    grid: Tensor
    data: Sequence[Data | None]  # by component
    edges: Sequence[Edge]
    temper: float
    constraint: Mapping[Expression, Tensor]
    left_out: Mapping[Expression, Tensor]  # variance of each derivative that its functions do not have [n]
    variances: Tensor = field(default_factory=lambda: torch.zeros(0))  # C [equations, n]

    @property
    def observed(self) -> list[int]:
        return [index for index, one in enumerate(self.data) if one is not None]

    @property
    def hidden(self) -> bool:
        """Whether a component has no data."""
        return len(self.observed) < len(self.data)

    @property
    def offsets(self) -> list[int]:
        found = [0]
        for one in self.bases:
            found.append(found[-1] + one.size)
        return found

    @property
    def size(self) -> int:
        return self.offsets[-1]

    def part(self, symbol: Expression) -> tuple[int, slice]:
        """The component of a derivative, and its coefficients' place in z."""
        index = self.system.vocabulary.components.index(self.system.derivatives[symbol].component)
        return index, slice(self.offsets[index], self.offsets[index + 1])

    def values(self, z: Tensor, eta: Tensor) -> dict[Any, Any]:
        """Every symbol's value on the grid."""
        fields = {}
        for symbol, functions in self.constraint.items():
            index, place = self.part(symbol)
            constant = self.bases[index].constant(self.system.derivatives[symbol].orders)
            fields[symbol] = functions @ z[place] + constant
        return self.system.values(fields, self.grid, self.parameters.constrained(eta))

    def residuals(self, z: Tensor, eta: Tensor) -> Tensor:
        """F on the grid [equations, n]."""
        values, n = self.values(z, eta), len(self.grid)
        found = [self.system.residual(number, values, torch) for number in range(len(self.system.residuals))]
        return torch.stack([_column(one, n) for one in found])

    def linearised(self, z: Tensor, eta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F [equations, n], dF/dz [equations, n, M] and dF/d eta [equations, n, parameters]."""
        values, n = self.values(z, eta), len(self.grid)
        residuals, by_eta = self.by_parameters(values, eta)
        by_z = torch.zeros((len(residuals), n, self.size), dtype=torch.float64)
        for number, slopes in enumerate(self.system.by_derivative):
            for symbol, slope in slopes.items():
                _, place = self.part(symbol)
                by_z[number, :, place] += _column(evaluate(slope, values, torch), n)[:, None] * self.constraint[symbol]
        return residuals, by_z, by_eta

    def by_parameters(self, fields: Mapping[Any, Any], eta: Tensor) -> tuple[Tensor, Tensor]:
        """F [equations, n] and dF/d eta [equations, n, parameters], given every derivative's values on the grid."""
        n, slopes = len(self.grid), self.parameters.slopes(eta)
        values = self.system.values(fields, self.grid, self.parameters.constrained(eta))
        equations = range(len(self.system.residuals))
        residuals = torch.stack([_column(self.system.residual(number, values, torch), n) for number in equations])
        by_eta = torch.zeros((len(equations), n, len(slopes)), dtype=torch.float64)
        for number in equations:
            for name, slope in self.system.by_parameter[number].items():
                column = self.parameters.names.index(name)
                by_eta[number, :, column] = _column(evaluate(slope, values, torch), n) * slopes[column]
        return residuals, by_eta

    def refresh(self, z: Tensor, eta: Tensor) -> None:
        """Compute C at an estimate."""
        values, n = self.values(z, eta), len(self.grid)
        found = torch.zeros((len(self.system.residuals), n), dtype=torch.float64)
        for number, slopes in enumerate(self.system.by_derivative):
            for symbol, slope in slopes.items():
                weight = _column(evaluate(slope, values, torch), n).square()
                prior = self.constraint[symbol].square().sum(1) + self.left_out[symbol]
                found[number] += weight * (self.left_out[symbol] + SLACK**2 * prior.mean())
        self.variances = found

    def data_terms(self, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """Of data and boundary values: -log likelihood, its gradient [M], its curvature [M, M] (Gauss-Newton)."""
        value = torch.zeros((), dtype=torch.float64)
        gradient = torch.zeros(self.size, dtype=torch.float64)
        curvature = torch.zeros((self.size, self.size), dtype=torch.float64)
        for index, one in enumerate(self.data):
            if one is None:
                continue
            place = slice(self.offsets[index], self.offsets[index + 1])
            difference = one.functions @ state.z[place] + self.bases[index].mean - one.values
            each, slope, bend = likelihood(difference / state.sigma[index], one.censored)
            value = value + each.sum() + (~one.censored).sum() * state.sigma[index].log()
            gradient[place] += one.functions.T @ slope / state.sigma[index]
            curvature[place, place] += one.functions.T @ (one.functions * bend[:, None]) / state.sigma[index] ** 2
        for edge in self.edges:
            place = slice(self.offsets[edge.component], self.offsets[edge.component + 1])
            difference = (edge.functions @ state.z[place] - edge.values) / edge.sd
            value = value + 0.5 * difference.square().sum()
            gradient[place] += edge.functions.T @ difference / edge.sd
            curvature[place, place] += edge.functions.T @ edge.functions / edge.sd**2
        return value, gradient, curvature

    def edge_curvature(self) -> Tensor:
        """The curvature of the boundary values alone [M, M]."""
        found = torch.zeros((self.size, self.size), dtype=torch.float64)
        for edge in self.edges:
            place = slice(self.offsets[edge.component], self.offsets[edge.component + 1])
            found[place, place] += edge.functions.T @ edge.functions / edge.sd**2
        return found

    def energy(self, z: Tensor, eta: Tensor, sigma: Tensor) -> Tensor:
        """-log posterior up to constants, differentiable."""
        value = 0.5 * z.square().sum() / self.temper - self.parameters.log_prior(eta)
        value = value + 0.5 * (self.residuals(z, eta).square() / self.variances).sum() / self.temper
        for index, one in enumerate(self.data):
            if one is not None:
                fitted = one.functions @ z[self.offsets[index] : self.offsets[index + 1]] + self.bases[index].mean
                each, _, _ = likelihood((fitted - one.values) / sigma[index], one.censored)
                value = value + each.sum() + (~one.censored).sum() * sigma[index].log()
        for edge in self.edges:
            fitted = edge.functions @ z[self.offsets[edge.component] : self.offsets[edge.component + 1]]
            value = value + 0.5 * ((fitted - edge.values) / edge.sd).square().sum()
        return value


def likelihood(difference: Tensor, censored: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """-log likelihood of (u - y) / sigma, its slope and its curvature. A censored y is a limit that u + noise is below:
    its likelihood is Phi(-difference)."""
    half = 0.5 * difference.square()
    if not censored.any():
        return half, difference, torch.ones_like(difference)
    log_below = torch.special.log_ndtr(-difference)
    ratio = torch.exp(-half - 0.5 * torch.log(torch.tensor(2 * torch.pi)) - log_below)
    bend = (ratio * (ratio - difference)).clamp(0.0, 1.0)
    return (
        torch.where(censored, -log_below, half),
        torch.where(censored, ratio, difference),
        torch.where(censored, bend, torch.ones_like(bend)),
    )


def _column(value: Tensor | float, n: int) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).expand(n)
