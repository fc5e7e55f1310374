"""What a finished training run tells: its facts, and its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.base import Context
from stages.model.config import DecoderConfig
from stages.training import memory
from stages.training.recipe import Execution, Recipe
from stages.training.task import TrainingResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def facts(result: TrainingResult) -> dict[str, Any]:
    """What a checkpoint's maker leaves in it. JSON values; losses in nats per token."""
    return {
        "steps": result.steps,
        "tokens_seen": result.tokens,
        "training_loss": result.loss,
        "validation_loss": result.validation_loss,
        "validation_loss_before": result.initial_validation_loss,
        "batches_skipped": result.skipped,
        **({"ended_early": result.ended} if result.ended else {}),
        **({"validation_loss_by_group": dict(result.validation_groups)} if result.validation_groups else {}),
    }


def figures(ctx: Context, result: TrainingResult, model: DecoderConfig, recipe: Recipe, execution: Execution) -> None:
    """Hand the run's figures over."""
    ctx.figure("loss", loss_figure(result))
    ctx.figure("memory", memory_figure(result, model, recipe, execution))
    groups = groups_figure(result)
    if groups is not None:
        ctx.figure("loss_by_group", groups)


def loss_figure(result: TrainingResult) -> Figure:
    """Training and validation loss over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*result.curve, strict=True), linewidth=1, alpha=0.7, label="training")
    axes.plot(*zip(*result.validation_curve, strict=True), marker="o", markersize=4, label="validation")
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def memory_figure(result: TrainingResult, model: DecoderConfig, recipe: Recipe, execution: Execution) -> Figure:
    """Bytes of a rank by part at each ZeRO stage, as planned; and beside the stage that ran, what rank 0 had."""
    from matplotlib.figure import Figure

    kept = {"zero_stage": range(4), "offload_parameters": ("none",) * 3 + (execution.offload_parameters,)}
    stages = [
        memory.predict(model, recipe, execution.model_copy(update=dict(zip(kept, values, strict=True))), result.ranks)
        for values in zip(*kept.values(), strict=True)
    ]
    bars = [
        (f"stage {stage}", {part: size for part, size in needed.parts.items() if part != "runtime"})
        for stage, needed in enumerate(stages)
    ]
    bars.insert(execution.zero_stage + 1, (f"stage {execution.zero_stage},\nmeasured", _measured(result)))
    largest = max(sum(parts.values()) for _, parts in bars)
    unit, size = next((unit, size) for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1))
                      if largest >= size)  # fmt: skip
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    below = [0.0] * len(bars)
    for part in bars[0][1]:
        heights = [parts.get(part, 0) / size for _, parts in bars]
        if any(heights):
            drawn = axes.bar([name for name, _ in bars], heights, width=0.7, bottom=below, label=part)
            drawn[execution.zero_stage + 1].set(hatch="//", edgecolor="white")
        below = [low + height for low, height in zip(below, heights, strict=True)]
    ranks = f"{result.ranks} rank{'s' if result.ranks > 1 else ''}"
    axes.set(
        ylabel=f"{unit} of one of {ranks}",
        title="Memory by part beyond the bare process: planned, and at its peak where it ran",
    )
    axes.set_title(axes.get_title(), fontsize="medium")
    axes.margins(x=0.02)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), reverse=True, frameon=False)
    return figure


def _measured(result: TrainingResult) -> dict[str, int]:
    """What rank 0 had by part. Transient is what its process had at its peak beyond those and what it began with:
    copies for a checkpoint are in it."""
    held = {part: result.memory.get(part, 0) for part in ("parameters", "gradients", "master", "optimizer")}
    grown = result.memory.get("process_peak", 0) - result.memory.get("bare", 0)
    return held | {"transient": max(0, grown - sum(held.values()))}


def groups_figure(result: TrainingResult) -> Figure | None:
    """The last validation loss of each source and language; None where there is but one of each."""
    if len(result.validation_groups) < 3:
        return None
    from matplotlib.figure import Figure

    names, losses = zip(*sorted(result.validation_groups.items(), reverse=True), strict=True)
    figure = Figure(figsize=(8, 1.2 + 0.25 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, losses, height=0.7)
    axes.axvline(result.validation_loss, color="black", linewidth=1, label="all")
    axes.set(xlabel="validation loss (nats per token)")
    figure.legend(loc="outside right upper", frameon=False)
    return figure
