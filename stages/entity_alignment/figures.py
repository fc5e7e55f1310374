"""Figures of an alignment and of its evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from stages.entity_alignment.graphs import Array

BINS = 40


def training_figure(losses: Sequence[float], selections: Sequence[tuple[int, float]], selection: str) -> Figure:
    """The loss of every epoch, and the MRR on the links for selection."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(losses) + 1), losses, color="C0")
    axes.set(xlabel="epoch", title="Training")
    axes.set_ylabel("loss", color="C0")
    axes.spines["top"].set_visible(False)
    if selections:
        other = axes.twinx()
        other.plot(*zip(*selections, strict=True), color="C1", marker=".")
        other.set_ylabel(f"MRR ({selection})", color="C1")
        other.set_ylim(0, 1)
        other.spines["top"].set_visible(False)
    return figure


def weights_figure(modalities: Sequence[str], weights: Array, corrupted: Mapping[str, Array]) -> Figure:
    """Histograms of the weights [entities, modalities]; where the corrupted entities are known, these next to the
    rest."""
    figure = Figure(figsize=(2.6 * len(modalities) + 0.8, 3.0), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(modalities), sharey=True))
    low, high = float(weights.min()), float(weights.max())
    margin = max(1e-3, 0.05 * (high - low))
    edges = np.linspace(low - margin, high + margin, BINS)
    for m, (axes, name) in enumerate(zip(panels, modalities, strict=True)):
        bad = np.zeros(len(weights), bool)
        if name in corrupted:
            bad[corrupted[name]] = True
        for chosen, label, colour in ((~bad, "intact", "C0"), (bad, "corrupted", "C3")):
            if chosen.any():
                share = np.full(int(chosen.sum()), 1 / chosen.sum())
                axes.hist(weights[chosen, m], bins=edges.tolist(), weights=share, alpha=0.6, color=colour, label=label)
        axes.set(title=name, xlabel="weight")
        axes.spines[["top", "right"]].set_visible(False)
        if bad.any():
            axes.legend(frameon=False, fontsize=8)
    panels[0].set_ylabel("share of entities")
    return figure


def robustness_figure(curves: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Hits@1 over the share of entities whose modality is noise: a line a modality."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        shares, hits = zip(*points, strict=True)
        axes.plot([100 * one for one in shares], [100 * one for one in hits], marker="o", markersize=3, label=name)
    axes.set(xlabel="entities whose modality is noise (%)", ylabel="Hits@1 (%)", title="Robustness", ylim=(0, 102))
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def hits_figure(ranks: Mapping[str, Array]) -> Figure:
    """The share of queries whose counterpart is among the k best, over k, in both directions."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for direction, found in ranks.items():
        k = np.unique(np.geomspace(1, max(2, len(found)), 60).astype(int))
        axes.plot(k, [100 * float((found <= one).mean()) for one in k], label=direction)
    axes.set(xscale="log", xlabel="k", ylabel="Hits@k (%)", title="Counterparts among the k best", ylim=(0, 102))
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
