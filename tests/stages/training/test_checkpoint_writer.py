"""Checkpoints are written while training continues, completely or not at all, and a full disk loses nothing."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
import time
import weakref
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from torch import Tensor

from stages.base import StageError
from stages.training import checkpoint_writer, checkpoints
from stages.training.loop import train
from stages.training.recipe import Execution
from stages.training.task import TrainingResult, TrainingSpec
from stages.training.zero import ShardedModel
from tests.durability import lost_in_a_power_cut
from tests.stages.training.test_exactness import assert_same, state
from tests.stages.training.toy import RecordingReporter, Workers, single_rank, spec

EVERY_STEP = Execution(zero_stage=1, checkpoint_every_steps=1, checkpoints_kept=2)


class Gate:
    """Blocks the writing of one checkpoint until `opened` is set."""

    def __init__(self, step: int) -> None:
        self.step, self.opened, self.reached = step, threading.Event(), threading.Event()

    def __call__(self, path: Path) -> None:
        if path.name == f"{checkpoints.PARTIAL}{self.step}":
            self.reached.set()
            assert self.opened.wait(60)


class OpensLater(RecordingReporter):
    """Opens a gate when a step is reported, which happens only if training continues in the meantime."""

    gate: Gate
    at: int
    scratch: Path

    def metrics(self, values: Any, step: int | None = None) -> None:
        super().metrics(values, step)
        if step == self.at and "loss" in values:
            assert self.gate.reached.wait(60)
            assert not checkpoints.checkpoint_path(self.scratch, self.gate.step).exists()
            self.gate.opened.set()


def test_training_continues_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    """The checkpoint of step 2 is blocked until step 3 is reported, and still holds the state after step 2."""
    reporter = OpensLater()
    reporter.gate, reporter.at, reporter.scratch = Gate(2), 3, tmp_path / "gated"
    execution = Execution(checkpoint_every_steps=2, checkpoints_kept=9)
    whole = checkpoints.sync

    def sync(path: Path) -> None:
        reporter.gate(path)
        whole(path)

    with patch.object(checkpoint_writer, "sync", sync):
        result = train(single_rank(reporter), spec(tmp_path / "gated", execution=execution))
    assert reporter.gate.opened.is_set()
    every_step = Execution(checkpoint_every_steps=1, checkpoints_kept=9)
    expected = train(single_rank(), spec(tmp_path / "other", execution=every_step))
    for step in (2, 4):
        left, right = (checkpoints.checkpoint_path(tmp_path / name, step) for name in ("gated", "other"))
        assert_same(checkpoints.weights(left), checkpoints.weights(right))
    assert_same(state(result), state(expected))


@pytest.mark.parametrize("buffer_bytes", [0, 30_000])
def test_a_small_buffer_only_waits(buffer_bytes: int, workers: Workers, tmp_path: Path) -> None:
    execution = EVERY_STEP.model_copy(update={"checkpoint_buffer_bytes": buffer_bytes})
    wanted = train(single_rank(), spec(tmp_path / "alone"))
    [(result, _), _] = workers.gang(train, spec(tmp_path / "gang", execution=execution), ranks=2)
    assert_same(state(result), state(wanted))


@pytest.mark.parametrize("limit_bytes", [0, 4_000, 1 << 30])
def test_no_more_copies_remain_than_the_buffer_holds(limit_bytes: int, tmp_path: Path) -> None:
    """Otherwise a rank would need more memory than was planned."""
    held: list[int] = []
    alive: list[int] = []
    copies: list[weakref.ref[Tensor]] = []
    writer = checkpoint_writer._BackgroundWrite
    put, collect = writer.put, ShardedModel.collect

    def counted(self: Any, group: dict[str, Tensor]) -> None:
        copies.extend(weakref.ref(tensor) for tensor in group.values())
        put(self, group)
        held.append(self._held_bytes)

    def collected(self: ShardedModel, index: int) -> Any:
        alive.append(sum(tensor.nbytes for copy in copies if (tensor := copy()) is not None))
        return collect(self, index)

    execution = EVERY_STEP.model_copy(update={"checkpoint_buffer_bytes": limit_bytes})
    with patch.object(writer, "put", counted), patch.object(ShardedModel, "collect", collected):
        train(single_rank(), spec(tmp_path, execution=execution))
    assert len(held) == len(alive) > 4
    assert max(held) <= limit_bytes
    assert max(alive) <= limit_bytes


def die_while_writing(scratch: Path) -> None:
    """Train; SIGKILL in the middle of the checkpoint of step 3."""
    whole = checkpoints.sync

    def sync(path: Path) -> None:
        if path.parent.name == f"{checkpoints.PARTIAL}3" and path.name == checkpoints.file_name(1):
            os.kill(os.getpid(), signal.SIGKILL)
        whole(path)

    with patch.object(checkpoint_writer, "sync", sync):
        train(single_rank(), spec(scratch, execution=EVERY_STEP))


def limited(scratch: Path, pipe: Any) -> None:
    """Train with a limit of 10 kB per file from the end of step 2 on, when the checkpoint of step 1 exists."""
    reporter = RecordingReporter()

    class Limiting(RecordingReporter):
        def metrics(self, values: Any, step: int | None = None) -> None:
            if step == 2 and "loss" in values:
                while not checkpoints.checkpoint_path(scratch, 1).exists():
                    time.sleep(0.01)
                resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    try:
        train(single_rank(Limiting()), spec(scratch, execution=EVERY_STEP))
    except StageError as error:
        reporter.notes.append(str(error))
    pipe.send(reporter.notes)


def in_a_process(function: Any, *arguments: Any) -> int:
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def names(scratch: Path) -> list[str]:
    return sorted(path.name for path in (scratch / checkpoints.FOLDER).iterdir())


def test_a_kill_during_a_checkpoint_leaves_the_previous_one(tmp_path: Path) -> None:
    wanted = train(single_rank(), spec(tmp_path / "alone"))
    assert in_a_process(die_while_writing, tmp_path / "killed") == -signal.SIGKILL
    assert names(tmp_path / "killed") == [".partial-3", "step-00000001", "step-00000002"]
    reporter = RecordingReporter()
    result = train(single_rank(reporter), spec(tmp_path / "killed", execution=EVERY_STEP))
    assert reporter.notes[0] == "resumes from the checkpoint of step 2"
    assert_same(state(result), state(wanted))
    assert names(tmp_path / "killed") == ["step-00000003", "step-00000004"]


def test_a_power_cut_loses_no_complete_checkpoint(tmp_path: Path) -> None:
    with lost_in_a_power_cut(tmp_path) as lost:
        train(single_rank(), spec(tmp_path, execution=EVERY_STEP))
    assert names(tmp_path) == ["step-00000003", "step-00000004"]
    assert lost == []


def test_a_full_disk_is_one_clear_error_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    assert in_a_process(limited, tmp_path, theirs) == 0
    [message] = ours.recv()
    assert "could not be written to" in message
    assert "File too large" in message
    assert "Free space there" in message
    assert names(tmp_path) == ["step-00000001"]
    assert "the previous one, step-00000001, is complete" in message
    wanted = train(single_rank(), spec(tmp_path / "alone"))
    assert_same(state(train(single_rank(), spec(tmp_path, execution=EVERY_STEP))), state(wanted))


def fail_to_write(rank: Any, given: TrainingSpec) -> TrainingResult:
    with patch.object(checkpoint_writer, "save_file", side_effect=OSError(28, "No space left on device")):
        return train(rank, given)


def test_every_rank_reports_the_reason(workers: Workers, tmp_path: Path) -> None:
    answers = workers.gang(fail_to_write, spec(tmp_path, execution=EVERY_STEP), ranks=2)
    assert [type(error) for error, _ in answers] == [StageError] * 2
    for error, _ in answers:
        assert "checkpoint of step 1 could not be written" in str(error)
        assert "No space left on device; there is no previous one" in str(error)
    assert names(tmp_path) == []
