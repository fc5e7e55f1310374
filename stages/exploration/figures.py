"""Figures of explorations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stages.exploration.explorations import ExplorationCurve, ExplorationFacts
from stages.exploration.intervals import mean_interval


def curves_figure(facts: ExplorationFacts, curves: Sequence[ExplorationCurve]) -> Figure:
    """Worst and mean value against trials or rounds, with 95 % intervals over seeds."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, name in zip(axes, ("worst", "mean"), strict=True):
        for method in facts.methods():
            own = [curve for curve in curves if curve.method == method]
            points = [mean_interval(values) for values in zip(*(getattr(one, name) for one in own), strict=True)]
            centre, half = np.array(points).T
            (line,) = axis.plot(own[0].at, centre, label=method, marker=".")
            axis.fill_between(own[0].at, centre - half, centre + half, color=line.get_color(), alpha=0.15, linewidth=0)
        axis.set_xlabel(facts.unit)
        axis.set_ylabel(f"{name} {facts.measure}")
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[1].legend(fontsize="small")
    figure.suptitle(f"{facts.problem}: mean of seeds with 95 % intervals")
    return figure


def gaps_figure(facts: ExplorationFacts) -> Figure | None:
    """The gap that each method left, by context or by the first two variables of the state; None without bounds."""
    maps = [one for one in facts.maps if one.gaps]
    if not maps:
        return None
    largest = max(max(one.gaps) for one in maps)
    figure = Figure(figsize=(2.6 * len(maps) + 0.8, 3), layout="constrained")
    axes = figure.subplots(1, len(maps), squeeze=False, sharex=True, sharey=True)[0]
    for axis, one in zip(axes, maps, strict=True):
        places = np.array(one.places)
        axis.set_title(one.method, fontsize="small")
        if places.shape[1] == 1:
            axis.bar(places[:, 0], one.gaps, width=0.8 / len(places))
            axis.set_xlabel("context")
        else:
            shown = axis.scatter(places[:, 0], places[:, 1], c=one.gaps, s=14, vmin=0, vmax=largest)
            axis.set_xlabel("first variable")
    if np.array(maps[0].places).shape[1] == 1:
        axes[0].set_ylabel("gap")
    else:
        axes[0].set_ylabel("second variable")
        figure.colorbar(shown, ax=axes, label="gap")
    figure.suptitle("Uncertainty about the best action that is left, first seed", fontsize="medium")
    return figure
