"""The training loop: the same for every stage that trains. `train` is what each rank of a gang runs.

    spec = TrainingSpec(task="stages.training.pretrain:build", arguments={...}, identity=..., recipe=..., ...)
    results = ctx.gang(train, spec, ranks=..., rank=..., max_restarts=...)

It goes on from the last checkpoint in the scratch, saves one when time says so, when the run is asked to stop and at
the end, and ends bitwise the same however often it was interrupted and however many ranks did the work.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import torch

from stages.base import Rank, StageError, Stopped
from stages.parallel.collectives import Collectives, joined
from stages.training import checkpoints, meters
from stages.training.compilation import compile_blocks
from stages.training.meter import Meter
from stages.training.progress import Progress
from stages.training.saving import Saver
from stages.training.schedule import learning_rate
from stages.training.stopping import reached
from stages.training.sums import Sums
from stages.training.task import Task, TrainingResult, TrainingSpec
from stages.training.validation import validate
from stages.training.zero import ShardedModel


class Signals(NamedTuple):
    """What ranks agree on once a step, beside the losses."""

    stopping: bool  # the run was asked to stop
    due: bool  # a checkpoint is to be saved
    late: bool  # the time for training is over
    unsaved: bool  # the last checkpoint could not be written


def train(rank: Rank, spec: TrainingSpec) -> TrainingResult:
    """Train to the recipe's end; see the module's first lines.

    Raises Stopped after saving when the run was asked to stop, StageError when training cannot go on.
    """
    with _threads(spec.recipe.threads_per_rank), joined(rank, spec.execution.collective_timeout_s) as collectives:
        _check_order(spec.recipe.free_order_ranks, collectives.ranks)
        task = spec.build()
        if spec.recipe.compiled:
            compile_blocks(task.blocks)
        model = ShardedModel(task, spec.recipe, spec.execution, collectives, Path(spec.scratch) / "offload")
        with Saver(Path(spec.scratch), _digest(spec, model), spec.execution, collectives) as saver:
            return _Run(rank, spec, task, model, collectives, saver).finish()


class _Run:
    def __init__(
        self, rank: Rank, spec: TrainingSpec, task: Task, model: ShardedModel, collectives: Collectives, saver: Saver
    ) -> None:
        self.rank, self.task, self.model, self.collectives, self.saver = rank, task, model, collectives, saver
        self.recipe, self.execution = spec.recipe, spec.execution
        self.scratch = Path(spec.scratch)
        self.progress = Progress()
        self.meter = Meter(task, spec.recipe, spec.execution, collectives)
        self.started = time.monotonic()

    @property
    def first(self) -> bool:
        return self.rank.index == 0

    def finish(self) -> TrainingResult:
        saved = checkpoints.restore(self.scratch, self.model, self.saver.digest, self.rank.reporter.note)
        if saved:
            self.progress = Progress(**saved.progress)
            self._note(f"goes on from the checkpoint of step {self.progress.step}")
        else:
            self.model.initialise(self.task.initial)
            self._validate()
        # All is loaded by now: what the process has beside its state is not training's.
        self.bare_bytes = meters.process().get("process_resident", 0) - sum(meters.held(self.model).values())
        progress, recipe = self.progress, self.recipe
        self.saver.start(progress.step if saved else None)
        self.seconds_before = progress.seconds
        self.started, self.first_tokens = time.monotonic(), progress.tokens
        while progress.step < recipe.steps and not progress.ended:
            signals = self._step()
            last = progress.step == recipe.steps
            if signals.late and not last:
                progress.ended = f"{recipe.stop_after_s:g} s (stop_after_s): not reproducible"
            if progress.step % recipe.validation_every == 0 or last or self._reached():
                self._validate()
            ended = last or self._reached()
            if ended or signals.due or signals.stopping:
                self.saver.save(progress.step, self.model, asdict(progress))
            if signals.unsaved or ended or signals.stopping:
                self.saver.finish()
            if signals.stopping and not ended:
                raise Stopped(f"stopped after step {progress.step} of {recipe.steps}; the checkpoint is saved")
        return self._result()

    # -- one step

    def _step(self) -> Signals:
        """One optimizer step; what is returned is the same on every rank."""
        recipe, progress = self.recipe, self.progress
        self.meter.start()
        samples = recipe.batch_size(progress.samples)
        self.model.leaves = leaves = samples // recipe.micro_batch_size
        sums = Sums(leaves, self.task, self.collectives)
        for turn in self.model.turns():
            with self.model.micro_batch(turn):
                start = progress.samples + min(turn, leaves - 1) * recipe.micro_batch_size
                loss = self.task.loss(self.task.model, range(start, start + recipe.micro_batch_size))
                loss.total.backward()
            sums.put(turn, loss)
        norm_of_sum = self.model.reduce()
        signals = Signals(*sums.combine(*self._signals()))
        means = sums.means()
        norm = norm_of_sum / means.targets
        rate = learning_rate(recipe, progress.step, progress.samples)
        fault = progress.take(recipe, samples, means, norm)
        if fault:
            self.model.discard()
            self._skip(fault)
        else:
            clipping = min(1.0, recipe.gradient_clipping / (norm + 1e-6)) if recipe.gradient_clipping else 1.0
            self.model.update(rate, clipping / means.targets, progress.updates)
        progress.seconds = self.seconds_before + time.monotonic() - self.started
        costs = self.meter.stop(means.targets)
        self._report(
            {"loss": means.loss, "learning_rate": rate, "gradient_norm": norm, "batch_size": samples}
            | dict(means.metrics)
            | costs
        )
        return signals

    def _signals(self) -> Signals:
        """Rank 0's clock and disk decide; any rank may be asked to stop."""
        seconds = self.seconds_before + time.monotonic() - self.started
        limit = self.recipe.stop_after_s
        return Signals(
            stopping=self.rank.reporter.stopping(),
            due=self.first and self.saver.due(self.progress.step + 1),
            late=self.first and limit is not None and seconds >= limit,
            unsaved=self.saver.failed,
        )

    def _skip(self, fault: str) -> None:
        progress = self.progress
        self._note(f"step {progress.step}: {fault}: this batch was skipped")
        if progress.skipped_in_a_row >= self.recipe.skipped_batches_limit:
            raise StageError(
                f"{progress.skipped_in_a_row} batches in a row were skipped, the last at step {progress.step} "
                f"({fault}): training has diverged. Lower learning_rate, lengthen warmup_steps or use float32; if "
                "these were no real spikes, raise loss_spike_factor or gradient_spike_factor"
            )

    def _reached(self) -> bool:
        """Whether training ends here before its last step; says so once."""
        progress, recipe = self.progress, self.recipe
        if progress.step == recipe.steps:
            return False
        losses = [loss for _, loss in progress.validation_curve]
        progress.ended = progress.ended or reached(recipe, progress.tokens, losses) or ""
        return bool(progress.ended)

    def _validate(self) -> None:
        means = validate(self.task, self.model, self.recipe, self.collectives)
        self.progress.validated(means)
        if self.first:
            named = {f"validation_{name}": value for name, value in means.metrics.items()}
            named |= {f"validation_loss/{name}": value for name, value in means.groups.items()}
            named |= meters.metrics(self.model)
            self.rank.reporter.metrics({"validation_loss": means.loss, **named}, step=self.progress.step)

    # -- what is told

    def _report(self, values: dict[str, float]) -> None:
        if not self.first:
            return
        progress = self.progress
        self.rank.reporter.metrics(values, step=progress.step)
        rate = (progress.tokens - self.first_tokens) / max(progress.seconds - self.seconds_before, 1e-9)
        self.rank.reporter.progress(
            progress.step, self.recipe.steps, "step", loss=progress.loss, tokens_per_second=round(rate)
        )

    def _note(self, message: str) -> None:
        if self.first:
            self.rank.reporter.note(message)

    def _result(self) -> TrainingResult:
        progress, sent = self.progress, self.collectives.sent_bytes
        if progress.ended:
            self._note(f"ended after step {progress.step} of {self.recipe.steps}: {progress.ended}")
        if self.first and sent:
            self.rank.reporter.metrics({f"sent_bytes_{purpose}": float(count) for purpose, count in sent.items()})
        result = progress.result(str(checkpoints.place(self.scratch, progress.step)), sent)
        memory = meters.parts(self.model) | {"bare": self.bare_bytes}
        return replace(result, memory=memory, ranks=self.collectives.ranks)


def _digest(spec: TrainingSpec, model: ShardedModel) -> str:
    """What a checkpoint must agree on: the recipe, the data and model by the spec's identity, every shape."""
    shapes = {slot.name: slot.shape for buffers in model.groups for slot in buffers.layout.slots}
    described = json.dumps([spec.recipe.model_dump(mode="json"), spec.identity, shapes], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def _check_order(free_order_ranks: int | None, ranks: int) -> None:
    if free_order_ranks not in (None, ranks):
        raise StageError(
            f"free_order_ranks is {free_order_ranks}, but {ranks} rank{'s' if ranks > 1 else ''} would train, to other "
            "bits: run on a cluster with room for all of them (not cluster=inline), or leave free_order_ranks out"
        )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with `count` threads: the number can change how sums are rounded."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
