"""The facts and figures of a finished training run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.base import Context
from stages.model.config import DecoderConfig
from stages.training import memory_plan
from stages.training.recipe import Execution, Recipe
from stages.training.task import TrainingResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def facts(result: TrainingResult) -> dict[str, Any]:
    """The facts that are stored with the trained checkpoint: JSON values; losses in nats per token."""
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


def figures(
    ctx: Context,
    result: TrainingResult,
    model: DecoderConfig,
    recipe: Recipe,
    execution: Execution,
    frozen: frozenset[str] = frozenset(),
) -> None:
    """Draw the figures of the run and pass them to `ctx`. `frozen`: the parameters that were not trained."""
    ctx.figure("loss", loss_figure(result))
    ctx.figure("memory", memory_figure(result, model, recipe, execution, frozen), measured=True)
    groups = groups_figure(result)
    if groups is not None:
        ctx.figure("loss_by_group", groups)


def loss_figure(result: TrainingResult) -> Figure:
    """Training and validation loss by step."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*result.curve, strict=True), linewidth=1, alpha=0.7, label="training")
    axes.plot(*zip(*result.validation_curve, strict=True), marker="o", markersize=4, label="validation")
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def memory_figure(
    result: TrainingResult,
    model: DecoderConfig,
    recipe: Recipe,
    execution: Execution,
    frozen: frozenset[str] = frozenset(),
) -> Figure:
    """Planned memory of a rank by part at each ZeRO stage, with rank 0's measured memory next to the stage that ran."""
    from matplotlib.figure import Figure

    kept = {"zero_stage": range(4), "offload_parameters": ("none",) * 3 + (execution.offload_parameters,)}
    plans = [
        memory_plan.predict(
            model, recipe, execution.model_copy(update=dict(zip(kept, values, strict=True))), result.ranks, frozen
        )
        for values in zip(*kept.values(), strict=True)
    ]
    bars = [
        (f"stage {stage}", {part: size for part, size in plan.parts.items() if part != "runtime"})
        for stage, plan in enumerate(plans)
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
        ylabel=f"{unit} per rank, with {ranks}",
        title="Memory by part without the bare process: planned, and the measured peak",
    )
    axes.set_title(axes.get_title(), fontsize="medium")
    axes.margins(x=0.02)
    axes.set_ylim(0, 1.05 * largest / size)  # automatic limits would end at the measured bar, as if it were cut off
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), reverse=True, frameon=False)
    return figure


def _measured(result: TrainingResult) -> dict[str, int]:
    """The memory of rank 0 by part, in bytes. "transient" is the peak of its process beyond the other parts and its
    size before training; it includes copies for a checkpoint."""
    held = {part: result.memory.get(part, 0) for part in ("parameters", "gradients", "master", "optimizer")}
    grown = result.memory.get("process_peak", 0) - result.memory.get("bare", 0)
    return held | {"transient": max(0, grown - sum(held.values()))}


def groups_figure(result: TrainingResult) -> Figure | None:
    """The last validation loss of each source and language; None if there is only one of each."""
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
