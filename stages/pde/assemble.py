"""Puts the posterior together: bases, the grid of the constraint, data and boundary values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stages.base import StageError
from stages.pde import basis, kernels
from stages.pde.basis import Basis
from stages.pde.equation import Equation
from stages.pde.observations import Table
from stages.pde.parameters import Parameters
from stages.pde.problem import Data, Edge, Problem, State
from stages.pde.settings import Settings
from stages.pde.smoothed import SmoothedFacts
from stages.pde.solver import function_of
from stages.pde.system import System

LENGTH_SHARES = (0.4, 0.6, 1.0)  # of the smoothed data's length-scales, of which the evidence chooses one
EARLY_SHARES = (1.0, 0.1)  # of the first coordinate's length-scale at its last point, at its first; likewise
POINTS_PER_LENGTH = 3  # of the grid, at least
FEWEST_NODES, MOST_NODES = 16, 241  # of a coordinate
DENSER_NODES = 60  # of a coordinate: denser than its data up to here
EXACT_SD = 1e-3  # of an exact boundary value, relative to the component's scale
ENTRIES_LIMIT = 30_000_000  # of the largest matrix: grid x modes


def assemble(equation: Equation, smoothed: SmoothedFacts, table: Table, settings: Settings) -> tuple[Problem, State]:
    """The posterior, and a state to start from: the smoothed data. Raises StageError where data and equation do not
    fit."""
    system = equation.system()
    _check(equation, smoothed, table, system)
    ranges = _ranges(equation, smoothed)
    share = settings.length_share or LENGTH_SHARES[0]
    origin = _origin(ranges[0], settings.early_share or EARLY_SHARES[0])
    nodes = _nodes(equation, smoothed, table, settings, ranges, share, origin)
    grid = torch.stack([one.flatten() for one in torch.meshgrid(*nodes, indexing="ij")], dim=1)
    bases = []
    for name in equation.components:
        one = smoothed.components[name]
        axes = [
            basis.coordinate(one.kernel, share * length, points)
            for length, points in zip(one.lengths, nodes, strict=True)
        ]
        if origin is not None:  # the length-scale is share * length at the last point
            length = share * one.lengths[0] / (ranges[0][1] - origin)
            axes[0] = basis.coordinate(one.kernel, length, nodes[0], origin)
        most = max(1, min(settings.most_modes, ENTRIES_LIMIT // len(grid)))
        bases.append(basis.basis(axes, one.mean, one.scale, system.orders(name), settings.energy, most, one.mean_sd))
    points = torch.from_numpy(table.points)
    data: list[Data | None] = []
    zero = (0,) * len(nodes)
    for index in range(len(bases)):
        known = torch.from_numpy(~np.isnan(table.values[:, index]))
        data.append(
            Data(
                bases[index].at(points[known], zero),
                torch.from_numpy(table.values[:, index])[known],
                torch.from_numpy(table.censored[:, index])[known],
            )
            if known.any()
            else None
        )
    constraint = {
        symbol: bases[equation.components.index(one.component)].at(grid, one.orders)
        for symbol, one in system.derivatives.items()
    }
    left_out = {
        symbol: (
            bases[equation.components.index(one.component)].variance(grid, one.orders)
            - constraint[symbol].square().sum(1)
        ).clamp(min=0.0)
        for symbol, one in system.derivatives.items()
    }
    observed = sum(len(one.values) for one in data if one is not None)
    temper = settings.temper or max(1.0, len(grid) * len(system.residuals) / observed)
    problem = Problem(
        system, Parameters(equation.parameters), bases, grid, data, _edges(equation, bases, nodes), temper, constraint,
        left_out,
    )  # fmt: skip
    return problem, _start(problem, smoothed, equation)


def _start(problem: Problem, smoothed: SmoothedFacts, equation: Equation) -> State:
    parts = []
    for index, name in enumerate(equation.components):
        one, noise = problem.data[index], smoothed.components[name].noise
        matrix = torch.eye(problem.bases[index].size, dtype=torch.float64)
        right = torch.zeros(problem.bases[index].size, dtype=torch.float64)
        if one is not None:
            matrix = matrix + one.functions.T @ one.functions / noise**2
            right = one.functions.T @ (one.values - problem.bases[index].mean) / noise**2
        parts.append(torch.linalg.solve(matrix, right))
    eta = problem.parameters.unconstrained(problem.parameters.starts())
    noises = torch.tensor([smoothed.components[name].noise for name in equation.components], dtype=torch.float64)
    return State(torch.cat(parts), eta, noises)


def _check(equation: Equation, smoothed: SmoothedFacts, table: Table, system: System) -> None:
    """Raises StageError if the data cannot say anything about a parameter or a derivative."""
    missing = [name for name in equation.components if name not in smoothed.components]
    if (
        missing
        or len(smoothed.components) != len(equation.components)
        or (table.points.shape[1] != len(equation.coordinates))
    ):
        raise StageError(
            f"the equation has the components {', '.join(equation.components)} on {', '.join(equation.coordinates)}; "
            f"the observations have {', '.join(smoothed.components)} on {table.points.shape[1]} coordinates"
        )
    count = int((~np.isnan(table.values)).sum())
    if count < len(equation.parameters) + 2:
        raise StageError(f"{count} observations are too few for {len(equation.parameters)} parameters and the noise")
    for name in equation.components:
        kernel = smoothed.components[name].kernel
        for orders in system.orders(name):
            if max(orders) > kernels.largest_order(kernel):
                raise StageError(
                    f"the equation has a derivative of order {max(orders)} of {name}, and {kernel} has derivatives of "
                    f"order {kernels.largest_order(kernel)} at most: choose a smoother kernel in the step that smooths"
                )
    for axis, coordinate in enumerate(equation.coordinates):
        highest = max(one.orders[axis] for one in system.derivatives.values())
        distinct = len(np.unique(table.points[:, axis]))
        if distinct <= highest:
            raise StageError(
                f"the observations have {distinct} different values of {coordinate}; a derivative of order {highest} "
                f"along it needs at least {highest + 1}"
            )


def _ranges(equation: Equation, smoothed: SmoothedFacts) -> list[tuple[float, float]]:
    """The observed range of each coordinate, extended to the edges with boundary values."""
    found = []
    for name, (low, high) in zip(equation.coordinates, smoothed.ranges, strict=True):
        places = [one.place for one in equation.conditions if one.coordinate == name]
        found.append((min([low, *places]), max([high, *places])))
    return found


def _origin(limits: tuple[float, float], share: float) -> float | None:
    """The origin of a coordinate whose length-scale at its first point is `share` of that at its last; None: 1."""
    low, high = limits
    return None if share == 1 else low - share * (high - low) / (1 - share)


def _nodes(
    equation: Equation,
    smoothed: SmoothedFacts,
    table: Table,
    settings: Settings,
    ranges: list[tuple[float, float]],
    share: float,
    origin: float | None,
) -> list[Tensor]:
    """The grid of the constraint along each coordinate, denser than the data and than the length-scales. An `origin`
    of the first coordinate makes it denser there."""
    unknown = [name for name in settings.grid if name not in equation.coordinates]
    if unknown:
        raise StageError(f"grid: {unknown[0]!r} is not a coordinate; expected {', '.join(equation.coordinates)}")
    counts = []
    for axis, (low, high) in enumerate(ranges):
        shortest = share * min(one.lengths[axis] for one in smoothed.components.values())
        distinct = len(np.unique(table.points[:, axis]))
        if axis == 0 and origin is not None:
            shortest *= (high - low) / (high - origin) / math.log((high - origin) / (low - origin))
        wanted = max(POINTS_PER_LENGTH * (high - low) / shortest, min(2 * distinct, DENSER_NODES), FEWEST_NODES)
        counts.append(min(math.ceil(wanted) + 1, MOST_NODES))
    given = [settings.grid.get(name) for name in equation.coordinates]
    while math.prod(one or count for one, count in zip(given, counts, strict=True)) > settings.most_grid_points:
        free = [place for place, one in enumerate(given) if one is None]
        if not free or max(counts[place] for place in free) <= 4:
            raise StageError(f"grid: more than most_grid_points={settings.most_grid_points} points")
        counts[max(free, key=lambda place: counts[place])] -= 1
    nodes = [
        torch.linspace(low, high, one or count, dtype=torch.float64)
        for (low, high), one, count in zip(ranges, given, counts, strict=True)
    ]
    if origin is not None:
        low, high = ranges[0]
        growth = torch.linspace(0, 1, len(nodes[0]), dtype=torch.float64)
        nodes[0] = origin + (low - origin) * ((high - origin) / (low - origin)) ** growth
        nodes[0][0], nodes[0][-1] = low, high  # without rounding
    return nodes


def _edges(equation: Equation, bases: Sequence[Basis], nodes: Sequence[Tensor]) -> list[Edge]:
    found = []
    for condition in equation.conditions:
        axis = equation.coordinates.index(condition.coordinate)
        along = [torch.tensor([condition.place], dtype=torch.float64) if place == axis else one
                 for place, one in enumerate(nodes)]  # fmt: skip
        points = torch.stack([one.flatten() for one in torch.meshgrid(*along, indexing="ij")], dim=1)
        index = equation.components.index(condition.component)
        values = torch.from_numpy(function_of(condition.value, equation.coordinates)(points.numpy()))
        functions = bases[index].at(points, condition.orders)
        spread = float(bases[index].variance(points, condition.orders).mean().sqrt())
        sd = equation.boundary_sd or EXACT_SD * spread
        found.append(Edge(index, functions, values - bases[index].constant(condition.orders), sd))
    return found
