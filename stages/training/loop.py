"""The training loop: the same for every stage that trains. `train` is what each rank of a gang runs.

    spec = TrainingSpec(task="stages.pretrain:build", arguments={...}, identity=..., recipe=..., execution=..., ...)
    results = ctx.gang(train, spec, ranks=..., rank=..., max_restarts=...)

It goes on from the last checkpoint in the scratch, saves one when time says so, when the run is asked to stop and at
the end, and ends bitwise the same however often it was interrupted and however many ranks did the work.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from stages.base import Rank, StageError, Stopped
from stages.training import checkpoints
from stages.training.collectives import Collectives, joined
from stages.training.schedule import learning_rate
from stages.training.task import Loss, Task, TrainingResult, TrainingSpec
from stages.training.zero import ShardedModel

CURVE_POINTS = 400


@dataclass
class Progress:
    """How far training has come. Saved with every checkpoint, so it holds JSON values."""

    step: int = 0  # batches taken, skipped ones included: with the recipe, the data cursor
    updates: int = 0  # steps of the optimizer
    tokens: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    loss: float = math.nan
    validation_loss: float = math.nan
    validation_metrics: dict[str, float] = field(default_factory=dict)
    curve: list[list[float]] = field(default_factory=list)
    validation_curve: list[list[float]] = field(default_factory=list)


def train(rank: Rank, spec: TrainingSpec) -> TrainingResult:
    """Train to the recipe's last step; see the module's first lines.

    Raises Stopped after saving when the run was asked to stop, StageError when training cannot go on.
    """
    with _threads(spec.recipe.threads_per_rank), joined(rank, spec.execution.collective_timeout_s) as collectives:
        task = spec.build()
        model = ShardedModel(task, spec.recipe, spec.execution, collectives, Path(spec.scratch) / "offload")
        return _Run(rank, spec, task, model, collectives).finish()


class _Run:
    def __init__(
        self, rank: Rank, spec: TrainingSpec, task: Task, model: ShardedModel, collectives: Collectives
    ) -> None:
        self.rank, self.spec, self.task, self.model, self.collectives = rank, spec, task, model, collectives
        self.recipe = spec.recipe
        self.scratch = Path(spec.scratch)
        self.digest = _digest(spec, model)
        self.progress = Progress()
        self.saved_step = -1
        self.saved_at = time.monotonic()

    @property
    def first(self) -> bool:
        return self.rank.index == 0

    def finish(self) -> TrainingResult:
        saved = checkpoints.restore(self.scratch, self.model, self.digest, self.rank.reporter.note)
        if saved:
            self.progress = Progress(**saved.progress)
            self.saved_step = self.progress.step
            self._note(f"goes on from the checkpoint of step {self.progress.step}")
        else:
            self.model.initialise(self.task.initial)
            self._validate()
        started, first_step = time.monotonic(), self.progress.step
        while self.progress.step < self.recipe.steps:
            began = time.monotonic()
            stopping, due = self._step()
            done = self.progress.step
            if done % self.recipe.validation_every == 0 or done == self.recipe.steps:
                self._validate()
            self._report(time.monotonic() - began, (time.monotonic() - started) / (done - first_step))
            if stopping or due or done == self.recipe.steps:
                self._save()
            if stopping and done < self.recipe.steps:
                raise Stopped(f"stopped after step {done} of {self.recipe.steps}; the checkpoint is saved")
        return self._result()

    # -- one step

    def _step(self) -> tuple[bool, bool]:
        """One optimizer step; (asked to stop, a checkpoint is due), the same on every rank."""
        recipe, progress = self.recipe, self.progress
        offset = progress.step * recipe.global_batch_size
        sums = _Sums(recipe.micro_batches, self.task, self.collectives)
        for turn in self.model.turns():
            with self.model.micro_batch(turn):
                start = offset + min(turn, recipe.micro_batches - 1) * recipe.micro_batch_size
                loss = self.task.loss(self.task.model, range(start, start + recipe.micro_batch_size))
                loss.total.backward()
            sums.put(turn, loss)
        norm_of_sum = self.model.reduce()
        stopping, due = sums.combine(self.rank.reporter.stopping(), self.first and self._due())
        targets, loss_value, metrics = sums.means()
        norm = norm_of_sum / targets
        rate = learning_rate(recipe, progress.step)
        progress.step += 1
        progress.tokens += int(targets)
        progress.loss = loss_value
        if math.isfinite(norm) and math.isfinite(loss_value):
            clipping = min(1.0, recipe.gradient_clipping / (norm + 1e-6)) if recipe.gradient_clipping else 1.0
            progress.updates += 1
            self.model.update(rate, clipping / targets, progress.updates)
            progress.skipped_in_a_row = 0
            progress.curve.append([progress.step, loss_value])
        else:
            self.model.discard()
            self._skip(loss_value, norm)
        self.point = {"loss": loss_value, "learning_rate": rate, "gradient_norm": norm, **metrics}
        return stopping, due

    def _skip(self, loss: float, norm: float) -> None:
        progress = self.progress
        progress.skipped += 1
        progress.skipped_in_a_row += 1
        self._note(f"step {progress.step}: loss {loss}, gradient norm {norm}: this batch was skipped")
        if progress.skipped_in_a_row >= self.recipe.skipped_batches_limit:
            raise StageError(
                f"{progress.skipped_in_a_row} batches in a row, up to step {progress.step}, had no finite loss or "
                "gradient: training has diverged. Lower learning_rate, lengthen warmup_steps or use float32"
            )

    def _validate(self) -> None:
        """The loss over the recipe's fixed validation samples, as if they were one batch."""
        used = min(self.recipe.validation_samples, self.task.validation_samples)
        if not used:
            raise StageError("the validation split has no whole sample: lower sequence_length or enlarge the split")
        size = min(self.recipe.micro_batch_size, used)
        chosen = [index * self.task.validation_samples // used for index in range(used)]
        batches = [chosen[start : start + size] for start in range(0, used, size)]
        sums = _Sums(len(batches), self.task, self.collectives)
        for turn in range(-(-len(batches) // self.rank.size)):
            number = turn * self.rank.size + self.rank.index
            # At stage 3 ranks gather together, so one without a batch of its own repeats the last.
            batch = batches[min(number, len(batches) - 1)]
            with self.model.forward_pass(), torch.no_grad():
                sums.put(number, self.task.validation_loss(self.task.model, batch))
        sums.combine()
        _, value, metrics = sums.means()
        self.progress.validation_curve.append([self.progress.step, value])
        self.progress.validation_loss = value
        self.progress.validation_metrics = metrics
        if self.first:
            named = {f"validation_{name}": metric for name, metric in metrics.items()}
            self.rank.reporter.metrics({"validation_loss": value, **named}, step=self.progress.step)

    # -- beside the work

    def _due(self) -> bool:
        """Whether a checkpoint should be saved after this step. Rank 0's clock decides."""
        execution, step = self.spec.execution, self.progress.step + 1
        if execution.checkpoint_every_steps and step % execution.checkpoint_every_steps == 0:
            return True
        return time.monotonic() - self.saved_at >= execution.checkpoint_every_s

    def _save(self) -> None:
        execution = self.spec.execution
        if self.saved_step != self.progress.step:
            progress = asdict(self.progress)
            checkpoints.save(
                self.scratch, self.progress.step, self.model, self.digest, progress, kept=execution.checkpoints_kept
            )
        self.saved_step, self.saved_at = self.progress.step, time.monotonic()

    def _report(self, seconds: float, mean_seconds: float) -> None:
        if not self.first:
            return
        step, rate = self.progress.step, self.recipe.tokens_per_step
        self.rank.reporter.metrics({**self.point, "tokens_per_second": rate / seconds}, step=step)
        self.rank.reporter.progress(
            step, self.recipe.steps, "step", loss=self.progress.loss, tokens_per_second=round(rate / mean_seconds)
        )

    def _note(self, message: str) -> None:
        if self.first:
            self.rank.reporter.note(message)

    def _result(self) -> TrainingResult:
        progress = self.progress
        if self.first and self.collectives.sent_bytes:
            sent = {f"sent_bytes_{purpose}": float(count) for purpose, count in self.collectives.sent_bytes.items()}
            self.rank.reporter.metrics(sent)
        return TrainingResult(
            checkpoint=str(self.scratch / checkpoints.FOLDER / f"step-{progress.step:08d}"),
            steps=progress.step,
            tokens=progress.tokens,
            skipped=progress.skipped,
            loss=progress.loss,
            validation_loss=progress.validation_loss,
            initial_validation_loss=progress.validation_curve[0][1],
            curve=_thinned(progress.curve),
            validation_curve=tuple((int(step), value) for step, value in progress.validation_curve),
            validation_metrics=progress.validation_metrics,
            sent_bytes=dict(self.collectives.sent_bytes),
        )


class _Sums:
    """Losses by micro-batch. One rank fills each slot, so sharing them adds zeros only; columns are summed exactly."""

    def __init__(self, slots: int, task: Task, collectives: Collectives) -> None:
        self.names = task.metric_names
        self.collectives = collectives
        self.table = torch.zeros(slots, 2 + len(self.names), dtype=torch.float64)

    def put(self, slot: int, loss: Loss) -> None:
        if slot >= len(self.table):
            return  # a spare turn: the micro-batch is another rank's
        shown = loss.total if loss.reported is None else loss.reported
        self.table[slot, 0] = loss.targets
        self.table[slot, 1] = shown.detach()
        if self.names:
            if loss.metrics is None or loss.metrics.shape != (len(self.names),):
                raise ValueError(f"the task names {len(self.names)} metrics, but its loss has {loss.metrics}")
            self.table[slot, 2:] = loss.metrics.detach()

    def combine(self, *flags: bool) -> list[bool]:
        """Share the table, and a few flags: true if true on any rank."""
        packed = torch.cat([self.table.view(-1), torch.tensor(flags, dtype=torch.float64)])
        packed = self.collectives.agree(packed.to(self.collectives.device)).cpu()
        self.table = packed[: self.table.numel()].view_as(self.table)
        return [bool(flag) for flag in packed[self.table.numel() :]]

    def means(self) -> tuple[float, float, dict[str, float]]:
        """Targets, loss per target, metrics per target."""
        targets, *sums = (_sum(column) for column in self.table.T.tolist())
        if not targets > 0:
            raise StageError("a batch has no target to predict: check the data and its mask")
        loss, *metrics = (value / targets for value in sums)
        return targets, loss, dict(zip(self.names, metrics, strict=True))


def _sum(values: Sequence[float]) -> float:
    return math.fsum(values) if all(map(math.isfinite, values)) else math.nan


def _digest(spec: TrainingSpec, model: ShardedModel) -> str:
    """What a checkpoint must agree on: the recipe, the data and model by the spec's identity, every shape."""
    shapes = {slot.name: slot.shape for buffers in model.groups for slot in buffers.layout.slots}
    described = json.dumps([spec.recipe.model_dump(mode="json"), spec.identity, shapes], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def _thinned(points: Sequence[Sequence[float]]) -> tuple[tuple[int, float], ...]:
    """At most `CURVE_POINTS` points, each the mean of a stretch of the curve."""
    stride = -(-len(points) // CURVE_POINTS) or 1
    stretches = [points[start : start + stride] for start in range(0, len(points), stride)]
    return tuple((int(part[-1][0]), math.fsum(value for _, value in part) / len(part)) for part in stretches)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with `count` threads: the number can change how sums are rounded."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
