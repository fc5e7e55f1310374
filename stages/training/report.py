"""What a finished training run tells: its facts, and its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.base import Context
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


def figures(ctx: Context, result: TrainingResult) -> None:
    """Hand the run's figures over."""
    ctx.figure("loss", loss_figure(result))
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
    axes.legend()
    return figure
