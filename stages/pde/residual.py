"""The residual of the equations on the grid of the constraint, at the maximum of the posterior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stages.pde.posterior import Posterior
from stages.pde.symbols import evaluate

if TYPE_CHECKING:
    from stages.pde.observations import Array


@dataclass(frozen=True)
class Residuals:
    """`values` [grid...] of each equation; `scales`: root mean square of its terms (slope times derivative)."""

    axes: list[Array]
    values: list[Array]
    scales: list[float]


def on_grid(posterior: Posterior) -> Residuals:
    """The residuals of the fields' mean with the parameters' medians."""
    facts, tensors = posterior.facts, posterior.tensors
    names = facts.equation.components
    axes = [tensors[f"nodes.{names[0]}.{axis}"] for axis in range(len(facts.ranges))]
    points = np.stack([one.ravel() for one in np.meshgrid(*axes, indexing="ij")], axis=1)
    grid, system, bases = torch.from_numpy(points), facts.equation.system(), posterior.bases()
    sizes = np.cumsum([0, *(one.size for one in bases)])
    mean = torch.from_numpy(tensors["z"]).mean(0)
    fields: dict[Any, torch.Tensor] = {}
    for symbol, one in system.derivatives.items():
        index = names.index(one.component)
        z = mean[sizes[index] : sizes[index + 1]]
        fields[symbol] = bases[index].at(grid, one.orders) @ z + bases[index].constant(one.orders)
    parameters = {name: one.median for name, one in facts.parameters.items()}
    values = system.values(fields, grid, parameters)
    shape = [len(one) for one in axes]
    found, scales = [], []
    for number, slopes in enumerate(system.by_derivative):
        residual = torch.as_tensor(system.residual(number, values, torch)).expand(len(grid))
        terms = [torch.as_tensor(evaluate(slope, values, torch)) * fields[symbol] for symbol, slope in slopes.items()]
        found.append(residual.numpy().reshape(shape))
        scales.append(
            max(float(torch.stack([one.expand(len(grid)) for one in terms]).square().sum(0).mean().sqrt()), 1e-300)
        )
    return Residuals(axes, found, scales)
