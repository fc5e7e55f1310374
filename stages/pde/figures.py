"""Figures of a posterior: fields with their bands, residuals, pairs of parameters, traces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stages.pde.observations import Table
from stages.pde.posterior import Posterior, PosteriorFacts
from stages.pde.residual import Residuals

if TYPE_CHECKING:
    from stages.pde.observations import Array

SLICES = 6  # of a field, at as many values of the first coordinate
PLOTTED = 1500  # samples of a pair


def field_figure(posterior: Posterior, table: Table, component: str) -> Figure:
    """Slices of a component along its second coordinate, with the 95 % band, the data and the truth."""
    facts = posterior.facts
    coordinates, place = facts.equation.coordinates, facts.equation.components.index(component)
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    if len(coordinates) == 1:
        axes = figure.subplots()
        _slice(axes, posterior, table, component, place, 0, {}, np.ones(len(table.points), bool))
        axes.set(xlabel=coordinates[0], ylabel=component)
        axes.legend(frameon=False, fontsize=8)
        figure.suptitle(f"{component}: mean, 95 % band and data")
        return figure
    times = np.unique(table.points[:, 0])
    chosen = times[np.unique(np.linspace(0, len(times) - 1, min(SLICES, len(times))).round().astype(int))]
    panels = np.atleast_1d(figure.subplots(-(-len(chosen) // 3), min(3, len(chosen)), sharex=True, sharey=True)).ravel()
    others = {axis: np.unique(table.points[:, axis]) for axis in range(2, len(coordinates))}
    fixed = {axis: float(values[len(values) // 2]) for axis, values in others.items()}
    for axes, time in zip(panels, chosen, strict=False):
        near = table.points[:, 0] == time
        for axis, value in fixed.items():
            near &= table.points[:, axis] == value
        _slice(axes, posterior, table, component, place, 1, {0: float(time), **fixed}, near)
        axes.set_title(f"{coordinates[0]} = {time:.4g}", fontsize=9)
        axes.set_xlabel(coordinates[1])
    for axes in panels[len(chosen) :]:
        axes.set_visible(False)
    panels[0].set_ylabel(component)
    panels[0].legend(frameon=False, fontsize=8)
    at = "".join(f", {coordinates[axis]} = {value:.3g}" for axis, value in fixed.items())
    figure.suptitle(f"{component}: mean, 95 % band and data{at}")
    return figure


def _slice(
    axes: Any,
    posterior: Posterior,
    table: Table,
    component: str,
    place: int,
    along: int,
    fixed: Mapping[int, float],
    near: NDArray[np.bool_],
) -> None:
    low, high = posterior.facts.ranges[along]
    line = np.linspace(low, high, 150)
    points = np.zeros((len(line), len(posterior.facts.ranges)))
    points[:, along] = line
    for axis, value in fixed.items():
        points[:, axis] = value
    found = posterior.predict(component, points)
    axes.fill_between(line, found.low, found.high, color="C0", alpha=0.3, linewidth=0, label="95 % band")
    axes.plot(line, found.mean, color="C0", label="mean")
    x, y = table.points[near, along], table.values[near, place]
    limited, held = table.censored[near, place], table.held_out[near]
    axes.plot(x[~limited & ~held], y[~limited & ~held], ".", color="black", markersize=3.5, label="data")
    if held.any():
        axes.plot(x[held & ~limited], y[held & ~limited], "x", color="C1", markersize=3.5, label="held out")
    if limited.any():
        axes.plot(x[limited], y[limited], "v", color="C3", markersize=3.5, label="at most")
    truth = table.truth[near, place]
    if not np.isnan(truth).all():
        order = np.argsort(x)
        axes.plot(x[order], truth[order], color="C2", linestyle="--", linewidth=1, label="truth")
    axes.spines[["top", "right"]].set_visible(False)


def residual_figure(facts: PosteriorFacts, residuals: Residuals, number: int) -> Figure:
    """The residual of an equation over the first two coordinates, in the middle of the others."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    relative = residuals.values[number] / residuals.scales[number]
    names = facts.equation.coordinates
    if relative.ndim == 1:
        axes.plot(residuals.axes[0], relative)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set(xlabel=names[0], ylabel="relative residual")
    else:
        while relative.ndim > 2:
            relative = relative[..., relative.shape[-1] // 2]
        limit = float(np.abs(relative).max()) or 1.0
        mesh = axes.pcolormesh(
            residuals.axes[1], residuals.axes[0], relative, cmap="RdBu_r", vmin=-limit, vmax=limit, shading="nearest"
        )
        figure.colorbar(mesh, label="residual, relative to the equation's terms")
        axes.set(xlabel=names[1], ylabel=names[0])
    axes.set_title(facts.equation.equations[number], fontsize=9)
    return figure


def pairs_figure(posterior: Posterior, truth: Mapping[str, float]) -> Figure:
    """Every parameter against every other, with histograms on the diagonal and the truth in green."""
    names, samples = list(posterior.facts.parameters), _theta(posterior)
    flat = {name: values.ravel() for name, values in samples.items()}
    step = max(1, len(flat[names[0]]) // PLOTTED)
    figure = Figure(figsize=(2.3 * len(names) + 1, 2.3 * len(names) + 0.5), layout="constrained")
    panels = figure.subplots(len(names), len(names), squeeze=False)
    for row, name in enumerate(names):
        for column, other in enumerate(names):
            axes = panels[row, column]
            if column > row:
                axes.set_visible(False)
                continue
            if row == column:
                axes.hist(flat[name], bins=30, color="C0", alpha=0.7)
                axes.set_yticks([])
            else:
                axes.plot(flat[other][::step], flat[name][::step], ".", markersize=1.5, alpha=0.4)
                if name in truth:
                    axes.axhline(truth[name], color="C2", linewidth=1)
            if other in truth:
                axes.axvline(truth[other], color="C2", linewidth=1)
            axes.tick_params(labelsize=7)
            axes.set_xlabel(other if row == len(names) - 1 else "")
            axes.set_ylabel(name if column == 0 and row else "")
    figure.suptitle("Posterior of the parameters" + (" (truth in green)" if truth else ""))
    return figure


def traces_figure(posterior: Posterior, truth: Mapping[str, float]) -> Figure:
    """The samples of every chain in order."""
    samples = _theta(posterior)
    figure = Figure(figsize=(8, 1.6 * len(samples) + 0.6), layout="constrained")
    panels = figure.subplots(len(samples), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (name, values) in zip(panels, samples.items(), strict=True):
        for chain in values:
            axes.plot(chain, linewidth=0.6)
        if name in truth:
            axes.axhline(truth[name], color="C2", linewidth=1.2)
        axes.set_ylabel(name)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("sample")
    figure.suptitle(f"{posterior.facts.chains} chains")
    return figure


def _theta(posterior: Posterior) -> dict[str, Array]:
    """The samples of each parameter [chains, samples]."""
    import torch

    from stages.pde.parameters import Parameters

    parameters = Parameters(posterior.facts.equation.parameters)
    eta = torch.from_numpy(posterior.tensors["x"])[..., : len(parameters.names)]
    return {name: values.numpy() for name, values in parameters.constrained(eta).items()}
