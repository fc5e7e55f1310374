"""What a finished training run tells: its facts, and its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    }


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
