"""The training loop, which is the same for every stage that trains. Each rank of a gang runs `train`.

    spec = TrainingSpec(build=partial(build, ...), identity=..., recipe=..., execution=..., scratch=...)
    results = ctx.gang(train, spec, ranks=..., rank=..., max_restarts=...)

The loop resumes from the last checkpoint in the scratch folder. It saves one at intervals, when the run is asked to
stop, and at the end. The result is bitwise the same however often training was interrupted and however many ranks it
ran on.
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
from stages.parallel.collectives import Collectives
from stages.parallel.process_group import process_group
from stages.training import checkpoints, memory_usage
from stages.training.batch_losses import BatchLosses
from stages.training.checkpoint_writer import CheckpointWriter
from stages.training.compilation import compile_blocks
from stages.training.early_stopping import reason_to_stop
from stages.training.schedule import learning_rate
from stages.training.task import Task, TrainingResult, TrainingSpec
from stages.training.throughput import ThroughputMeter
from stages.training.trainer_state import TrainerState
from stages.training.validation import validate
from stages.training.zero import ShardedModel


class Signals(NamedTuple):
    """What ranks agree on once a step: each is true if it is true on any rank."""

    stopping: bool  # the run was asked to stop
    checkpoint_due: bool
    time_over: bool  # `stop_after_s` has passed
    checkpoint_failed: bool  # the last checkpoint could not be written


def train(rank: Rank, spec: TrainingSpec) -> TrainingResult:
    """Train to the end of the recipe; see the module's docstring.

    Raises Stopped, after saving, if the run was asked to stop; StageError if training cannot continue; CollectiveError
    if another rank was lost.
    """
    with (
        _threads(spec.recipe.threads_per_rank),
        process_group(rank, spec.execution.collective_timeout_s) as collectives,
    ):
        _check_ranks(spec.recipe.free_order_ranks, collectives.ranks)
        task = spec.build(spec.recipe)
        if spec.recipe.compiled:
            compile_blocks(task.blocks)
        model = ShardedModel(task, spec.recipe, spec.execution, collectives, Path(spec.scratch) / "offload")
        with CheckpointWriter(
            Path(spec.scratch), _digest(spec, model), spec.execution, collectives, spec.kept_step
        ) as writer:
            return _Trainer(rank, spec, task, model, collectives, writer).run()


class _Trainer:
    def __init__(
        self,
        rank: Rank,
        spec: TrainingSpec,
        task: Task,
        model: ShardedModel,
        collectives: Collectives,
        writer: CheckpointWriter,
    ) -> None:
        self.rank, self.task, self.model, self.collectives, self.writer = rank, task, model, collectives, writer
        self.spec, self.recipe, self.execution = spec, spec.recipe, spec.execution
        self.scratch = Path(spec.scratch)
        self.state = TrainerState()
        self.meter = ThroughputMeter(task, spec.recipe, spec.execution, collectives)
        self.started = time.monotonic()

    @property
    def is_first(self) -> bool:
        return self.rank.index == 0

    def run(self) -> TrainingResult:
        saved = checkpoints.restore(self.scratch, self.model, self.writer.digest, self.rank.reporter.note)
        if saved:
            self.state = TrainerState(**saved.progress)
            self._note(f"resumes from the checkpoint of step {self.state.step}")
            if self.state.step == self.recipe.steps or self.state.ended:  # the reports before may have been lost
                self._report_validation()
        else:
            self._begin()
            self._validate()
        # Everything is loaded by now: what the process holds apart from the training state is not due to training.
        resident = memory_usage.process().get("process_resident", 0)
        self.bare_bytes = resident - sum(memory_usage.held(self.model).values())
        state, recipe = self.state, self.recipe
        self.writer.start(state.step if saved else None)
        self.seconds_before = state.seconds
        self.started, self.first_tokens = time.monotonic(), state.tokens
        if state.step == self.spec.kept_step:
            self.writer.save(state.step, self.model, asdict(state))
        while state.step < recipe.steps and not state.ended:
            signals = self._step()
            last = state.step == recipe.steps
            if signals.time_over and not last:
                state.ended = f"{recipe.stop_after_s:g} s (stop_after_s): not reproducible"
            if state.step % recipe.validation_every == 0 or last or self._ends_early():
                self._validate()
            ended = last or self._ends_early()
            if ended or signals.checkpoint_due or signals.stopping or state.step == self.spec.kept_step:
                self.writer.save(state.step, self.model, asdict(state))
            if signals.checkpoint_failed or ended or signals.stopping:
                self.writer.finish()
            if signals.stopping and not ended:
                raise Stopped(f"stopped after step {state.step} of {recipe.steps}; the checkpoint is saved")
        return self._result()

    def _begin(self) -> None:
        """Set the model and the trainer state to what training starts from."""
        start = self.spec.start
        if start is None:
            self.model.initialise(self.task.initial)
            return
        progress = checkpoints.start_from(Path(start.path), self.model)
        self.state = TrainerState.started(progress, start.continues)
        self._note(f"starts from the training state of step {progress['step']}")

    # -- one step

    def _step(self) -> Signals:
        """One optimizer step. The result is the same on every rank."""
        recipe, state = self.recipe, self.state
        self.meter.start()
        samples = recipe.batch_size(state.samples)
        self.model.micro_batches = count = samples // recipe.micro_batch_size
        losses = BatchLosses(count, self.task, self.collectives)
        for turn in self.model.turns():
            with self.model.micro_batch(turn):
                start = state.samples + min(turn, count - 1) * recipe.micro_batch_size
                loss = self.task.loss(self.task.model, range(start, start + recipe.micro_batch_size))
                loss.total.backward()
            losses.put(turn, loss)
        norm_of_sum = self.model.reduce()
        signals = Signals(*losses.combine(*self._signals()))
        means = losses.means()
        norm = norm_of_sum / means.targets
        rate = learning_rate(recipe, state.step, state.samples)
        fault = state.take_batch(recipe, samples, means, norm)
        if fault:
            self.model.discard_gradient()
            self._skip(fault)
        else:
            clipping = min(1.0, recipe.gradient_clipping / (norm + 1e-6)) if recipe.gradient_clipping else 1.0
            self.model.update(rate, clipping / means.targets, state.updates)
        state.seconds = self.seconds_before + time.monotonic() - self.started
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
            checkpoint_due=self.is_first and self.writer.due(self.state.step + 1),
            time_over=self.is_first and limit is not None and seconds >= limit,
            checkpoint_failed=self.writer.failed,
        )

    def _skip(self, fault: str) -> None:
        state = self.state
        self._note(f"step {state.step}: {fault}: this batch was skipped")
        if state.skipped_in_a_row >= self.recipe.skipped_batches_limit:
            raise StageError(
                f"{state.skipped_in_a_row} batches in a row were skipped, the last at step {state.step} ({fault}): "
                "training has diverged. Lower learning_rate, raise warmup_steps or use float32; if these batches were "
                "sound, raise loss_spike_factor or gradient_spike_factor"
            )

    def _ends_early(self) -> bool:
        """Whether training ends here, before the recipe's last step. Records the reason."""
        state, recipe = self.state, self.recipe
        if state.step == recipe.steps:
            return False
        losses = [loss for _, loss in state.validation_curve]
        state.ended = state.ended or reason_to_stop(recipe, state.tokens, losses) or ""
        return bool(state.ended)

    def _validate(self) -> None:
        self.state.record_validation(validate(self.task, self.model, self.recipe, self.collectives))
        self._report_validation()
        if self.is_first:
            self.rank.reporter.metrics(memory_usage.metrics(self.model), step=self.state.step)

    # -- reporting

    def _report_validation(self) -> None:
        """Report the last validation."""
        if not self.is_first:
            return
        state = self.state
        named = {f"validation_{name}": value for name, value in state.validation_metrics.items()}
        named |= {f"validation_loss/{name}": value for name, value in state.validation_groups.items()}
        self.rank.reporter.metrics({"validation_loss": state.validation_loss, **named}, step=state.step)

    def _report(self, values: dict[str, float]) -> None:
        if not self.is_first:
            return
        state = self.state
        self.rank.reporter.metrics(values, step=state.step)
        rate = (state.tokens - self.first_tokens) / max(state.seconds - self.seconds_before, 1e-9)
        self.rank.reporter.progress(
            state.step, self.recipe.steps, "steps", loss=state.loss, tokens_per_second=round(rate)
        )

    def _note(self, message: str) -> None:
        if self.is_first:
            self.rank.reporter.note(message)

    def _result(self) -> TrainingResult:
        state, sent = self.state, self.collectives.sent_bytes
        if state.ended:
            self._note(f"ended after step {state.step} of {self.recipe.steps}: {state.ended}")
        if self.is_first and sent:
            self.rank.reporter.metrics({f"sent_bytes_{purpose}": float(count) for purpose, count in sent.items()})
        result = state.result(str(checkpoints.checkpoint_path(self.scratch, state.step)), sent)
        memory = memory_usage.parts(self.model) | {"bare": self.bare_bytes}
        return replace(result, memory=memory, ranks=self.collectives.ranks)


def _digest(spec: TrainingSpec, model: ShardedModel) -> str:
    """What a checkpoint must agree on: the recipe, the identity of data and model, every shape, what is frozen."""
    shapes = {slot.name: slot.shape for buffers in model.groups for slot in buffers.layout.slots}
    frozen = [slot.name for buffers in model.groups if buffers.layout.frozen for slot in buffers.layout.slots]
    parts = [spec.recipe.model_dump(mode="json"), spec.identity, shapes, *([frozen] if frozen else [])]
    described = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def _check_ranks(free_order_ranks: int | None, ranks: int) -> None:
    if free_order_ranks not in (None, ranks):
        raise StageError(
            f"free_order_ranks is {free_order_ranks}, but {ranks} rank{'s' if ranks > 1 else ''} would train, which "
            "gives other bits: run on a cluster with room for all ranks (not cluster=inline), or leave "
            "free_order_ranks out"
        )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with `count` threads, because their number can change how sums are rounded."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
