"""The state of a training run apart from its tensors: counters and curves, saved with every checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.training.batch_losses import BatchMeans
from stages.training.recipe import Recipe
from stages.training.skipped_batches import reason_to_skip
from stages.training.task import TrainingResult

CURVE_POINTS = 400


@dataclass
class TrainerState:
    """JSON values only, because it is saved with every checkpoint."""

    step: int = 0  # batches taken, skipped ones included
    samples: int = 0  # in those batches; together with the recipe, this is the position in the data
    updates: int = 0  # steps of the optimizer
    tokens: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    seconds: float = 0.0  # of training, including those before restarts
    ended: str = ""  # why training ended before the recipe's last step
    loss: float = math.nan
    validation_loss: float = math.nan
    validation_metrics: dict[str, float] = field(default_factory=dict)
    validation_groups: dict[str, float] = field(default_factory=dict)
    curve: list[list[float]] = field(default_factory=list)
    validation_curve: list[list[float]] = field(default_factory=list)
    recent: list[list[float]] = field(default_factory=list)  # (loss, gradient norm) of the last batches trained on

    @classmethod
    def started(cls, progress: Mapping[str, Any], continues: bool) -> TrainerState:
        """The state of a training that starts from the kept state of another one: `progress`, its fields.

        The moments that it took over were averaged over that training's updates, which therefore count on. If it
        `continues`, so do the steps, the place in the data and the losses that spikes are compared with. The curves
        are those of this training alone.
        """
        names = ["updates"]
        if continues:
            names += ["step", "samples", "tokens", "skipped", "recent"]
        return cls(**{name: progress[name] for name in names})

    def take_batch(self, recipe: Recipe, samples: int, means: BatchMeans, norm: float) -> str | None:
        """Record a batch of `samples` samples. Returns why it must not be trained on, or None."""
        self.step += 1
        self.samples += samples
        self.tokens += int(means.targets)
        self.loss = means.loss
        losses, norms = ([point[column] for point in self.recent] for column in (0, 1))
        reason = reason_to_skip(recipe, losses, norms, means.loss, norm)
        if reason:
            self.skipped += 1
            self.skipped_in_a_row += 1
            return reason
        self.updates += 1
        self.skipped_in_a_row = 0
        self.curve.append([self.step, means.loss])
        self.recent = [*self.recent, [means.loss, norm]][-recipe.spike_window :]
        return None

    def record_validation(self, means: BatchMeans) -> None:
        self.validation_curve.append([self.step, means.loss])
        self.validation_loss = means.loss
        self.validation_metrics = dict(means.metrics)
        self.validation_groups = dict(means.groups)

    def result(self, checkpoint: str, sent_bytes: Mapping[str, int]) -> TrainingResult:
        return TrainingResult(
            checkpoint=checkpoint,
            steps=self.step,
            tokens=self.tokens,
            skipped=self.skipped,
            ended=self.ended,
            loss=self.loss,
            validation_loss=self.validation_loss,
            initial_validation_loss=self.validation_curve[0][1],
            curve=_thinned(self.curve),
            validation_curve=tuple((int(step), value) for step, value in self.validation_curve),
            validation_metrics=self.validation_metrics,
            validation_groups=self.validation_groups,
            sent_bytes=dict(sent_bytes),
        )


def _thinned(points: Sequence[Sequence[float]]) -> tuple[tuple[int, float], ...]:
    """At most `CURVE_POINTS` points, each the mean over consecutive points of the curve."""
    stride = -(-len(points) // CURVE_POINTS) or 1
    stretches = [points[start : start + stride] for start in range(0, len(points), stride)]
    return tuple((int(part[-1][0]), math.fsum(value for _, value in part) / len(part)) for part in stretches)
