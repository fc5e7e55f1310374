"""Solves a simulation and takes the values at its observed points."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import RegularGridInterpolator

from stages.pde.simulation import Simulation
from stages.pde.solver import Array, Solver


def solver_of(given: Simulation) -> tuple[Solver, Array, int]:
    """The solver of a simulation, the times of its output, and the steps between two of them."""
    space = [np.linspace(given.grid[name].low, given.grid[name].high, given.grid[name].nodes)
             for name in given.equation.coordinates[1:]]  # fmt: skip
    time = given.grid[given.equation.coordinates[0]]
    times = np.linspace(time.first, time.last, time.points)
    if time.low < time.first:
        times = np.concatenate([[time.low], times])
    return Solver(given.equation, space, given.initial), times, min(time.nodes, 10_000)


def observed(given: Simulation, solver: Solver, times: Array, fields: dict[str, Array]) -> tuple[Array, Array]:
    """The observed points [n, coordinates], and the components there [n, components]."""
    axes = [np.linspace(one.first, one.last, one.points)
            for one in (given.grid[name] for name in given.equation.coordinates)]  # fmt: skip
    points = np.stack([one.ravel() for one in np.meshgrid(*axes, indexing="ij")], axis=1)
    skipped = len(times) - len(axes[0])
    values = []
    for name in given.equation.components:
        field = fields[name][skipped:]
        if solver.space:
            grid = RegularGridInterpolator(
                (axes[0], *solver.space), field, method="linear" if len(axes[0]) < 4 else "cubic"
            )
            values.append(grid(points))
        else:
            values.append(field)
    return points, np.stack(values, axis=1)


def simulated(given: Simulation) -> tuple[Array, Array]:
    """Points [n, coordinates] and true values [n, components]. Raises StageError."""
    solver, times, steps = solver_of(given)
    return observed(given, solver, times, solver.solve(given.parameters, times, steps))
