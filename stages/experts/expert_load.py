"""The load of experts: how evenly tokens are distributed over them, in a batch and on held-out text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stages.model.decoder import Decoder
from stages.model.feed_forward import Routing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BALANCE = ("load_balancing_loss", "load_entropy", "load_violation")
Batch = tuple[Tensor, Tensor, Tensor]  # inputs, targets, document numbers


def entropy(load: Tensor) -> float:
    """The entropy of a load [experts] divided by its maximum: 1 if the load is even, 0 if one expert has all."""
    if len(load) == 1:
        return 1.0
    share = load / load.sum()
    return float(torch.special.entr(share).sum()) / math.log(len(load))


def violation(load: Tensor) -> float:
    """MaxVio (arXiv 2408.15664) of a load [experts]: (largest - mean) / mean. 0 if the load is even."""
    mean = float(load.sum()) / len(load)
    return float(load.max()) / mean - 1


def balance_metrics(routings: Sequence[Routing]) -> Tensor:
    """The `BALANCE` metrics of one forward pass, [3], each the mean over layers. They have no gradient."""
    with torch.no_grad():
        rows = [[float(r.balance_loss()), entropy(r.load), violation(r.load)] for r in routings]
    return torch.tensor(rows).mean(0)


@torch.inference_mode()
def measure_loads(model: Decoder, batches: Iterable[Batch]) -> dict[int, Tensor]:
    """The number of tokens of each expert over all batches: layer -> [experts] int64."""
    loads: dict[int, Tensor] = {}
    for inputs, _, documents in batches:
        routings: list[Routing] = []
        model.hidden_states(inputs, documents=documents, routings=routings)
        for routing in routings:
            loads[routing.layer] = loads.get(routing.layer, 0) + routing.load
    return loads


def load_metrics(loads: Mapping[int, Tensor]) -> dict[str, float]:
    """Three metrics for the load of each layer by name: entropy, violation and the number of unused experts."""
    metrics: dict[str, float] = {}
    for layer, load in loads.items():
        metrics[f"layer_{layer}_load_entropy"] = entropy(load)
        metrics[f"layer_{layer}_load_violation"] = violation(load)
        metrics[f"layer_{layer}_dead_experts"] = float((load == 0).sum())
    return metrics


def load_figure(before: Mapping[int, Tensor], after: Mapping[int, Tensor]) -> Figure:
    """A figure of the share of tokens of each expert before and after training, with one panel for each layer."""
    from matplotlib.figure import Figure

    columns = min(len(before), 4)
    rows = -(-len(before) // columns)
    figure = Figure(figsize=(max(5.0, 3.2 * columns), 2.8 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for layer, panel in zip(before, panels, strict=False):
        experts = torch.arange(len(before[layer]))
        for shift, (label, load) in ((-0.2, ("before", before[layer])), (0.2, ("after", after[layer]))):
            panel.bar((experts + shift).tolist(), (load / load.sum()).tolist(), 0.4, label=label)
        panel.axhline(1 / len(experts), color="black", linewidth=0.8, linestyle=":")
        panel.set(title=f"layer {layer}", xlabel="expert", xticks=experts.tolist() if len(experts) <= 16 else [])
    for panel in list(panels):
        panel.set_visible(False)
    figure.supylabel("share of tokens")
    figure.axes[0].legend()
    return figure
