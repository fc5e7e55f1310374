"""Figures of an alignment and of its evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from stages.word_alignment.alignment import AlignmentFacts
from stages.word_alignment.linear import Array, mapped

PLOTTED_WORDS = 1000  # of each language, the most frequent


def criterion_figure(facts: AlignmentFacts) -> Figure:
    """The criterion over the iterations of every restart, with the one that was kept, and the level of chance."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for number, restart in enumerate(facts.restarts):
        kept = number == facts.kept
        label = f"seed {restart.seed}, kept" if kept else None
        style = {"color": "C0", "linewidth": 1.8, "zorder": 3} if kept else {"color": "C7", "linewidth": 0.8}
        axes.plot(range(1, len(restart.criteria) + 1), restart.criteria, label=label, **style)  # type: ignore[arg-type]
    axes.axhline(facts.chance_criterion, color="C3", linestyle=":", label="refined random rotations")
    axes.axvline(facts.method_iterations, color="black", linestyle="--", linewidth=0.8, label="refinement starts")
    axes.set(xlabel="iteration", ylabel="mean CSLS (higher is better)")
    axes.set_title(f"Criterion of {len(facts.restarts)} restart{'s' if len(facts.restarts) > 1 else ''}")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def spaces_figure(facts: AlignmentFacts, source: Array, target: Array, mapping: Array) -> Figure:
    """The most frequent words of both languages before and after, on the target's first two principal components."""
    source, target = source[:PLOTTED_WORDS], target[:PLOTTED_WORDS]
    _, _, directions = np.linalg.svd(target - target.mean(axis=0), full_matrices=False)
    plane = directions[:2].T
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, title, points in zip(panels, ("before", "after"), (source, mapped(source, mapping)), strict=True):
        for words, language, color in ((target, facts.languages[1], "C1"), (points, facts.languages[0], "C0")):
            x, y = (words @ plane).T
            axes.scatter(x, y, s=4, alpha=0.5, label=language, color=color, linewidths=0)
        axes.set_title(title)
        axes.set_xlabel("first component of the target")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("second component")
    panels[1].legend(frameon=False, fontsize=8, markerscale=3)
    return figure


def accuracy_figure(facts: AlignmentFacts, accuracy: Sequence[float]) -> Figure:
    """P@1 and the criterion over the iterations of the restart that was kept."""
    kept = facts.restarts[facts.kept]
    iterations = range(1, len(accuracy) + 1)
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(iterations, [100 * value for value in accuracy], color="C0")
    axes.set(xlabel="iteration", ylim=(0, None))
    axes.set_ylabel("P@1 (%)", color="C0")
    axes.axvline(facts.method_iterations, color="black", linestyle="--", linewidth=0.8)
    axes.set_title("Accuracy and criterion; the dashed line is where refinement starts")
    other = axes.twinx()
    other.plot(iterations, kept.criteria, color="C2")
    other.set_ylabel("mean CSLS", color="C2")
    for one in (axes, other):
        one.spines["top"].set_visible(False)
    return figure
