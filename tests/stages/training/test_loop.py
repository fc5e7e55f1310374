"""The training loop: batch size ramps, skipped spikes, early ends, metrics of a step's cost, and compiled blocks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.base import StageError, Stopped
from stages.training import loop
from stages.training.batch_losses import BatchMeans
from stages.training.early_stopping import reason_to_stop
from stages.training.loop import train
from stages.training.ramp import BatchSizeRamp
from stages.training.recipe import Execution, Recipe
from stages.training.skipped_batches import reason_to_skip
from stages.training.task import TrainingResult
from stages.training.trainer_state import TrainerState
from tests.stages.training.test_exactness import assert_same, state
from tests.stages.training.toy import RECIPE, RecordingReporter, Toy, Workers, single_rank, spec


def changed(**fields: Any) -> Recipe:
    return Recipe.model_validate(RECIPE.model_dump() | fields)


# -- the batch size

RAMP = {"start": 4, "increment": 4, "samples": 24}


@given(start=st.integers(1, 9), increment=st.integers(1, 5), count=st.integers(1, 9), samples=st.integers(1, 500))
def test_a_ramp_grows_in_equal_stretches(start: int, increment: int, count: int, samples: int) -> None:
    full = start + count * increment
    ramp = BatchSizeRamp(start=start, increment=increment, samples=samples)
    sizes = [ramp.size(taken, full) for taken in range(samples + 1)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1], ramp.size(10**9, full)) == (start, full, full)
    assert set(sizes) <= set(ramp.sizes(full))
    stretches = [sizes.count(size) for size in ramp.sizes(full)[:-1]]
    assert max(stretches) - min(stretches) <= 1


def test_the_ramp_of_bloom() -> None:
    """From 192 to 2048 by 16 over 9,765,625 samples."""
    ramp = BatchSizeRamp(start=192, increment=16, samples=9_765_625)
    assert [ramp.size(taken, 2048) for taken in (0, 84_186, 84_187, 9_765_624, 9_765_625)] == [
        192,
        192,
        208,
        2032,
        2048,
    ]


@pytest.mark.parametrize(
    ("ramp", "named"),
    [
        ({"start": 4, "increment": 5, "samples": 9}, "do not lead to global_batch_size 16"),
        ({"start": 16, "increment": 4, "samples": 9}, "do not lead to global_batch_size 16"),
        ({"start": 1, "increment": 3, "samples": 9}, "start 1 is not a multiple of micro_batch_size 2"),
        ({"start": 4, "increment": 3, "samples": 9}, "increment 3 is not a multiple of micro_batch_size 2"),
    ],
)
def test_an_inconsistent_ramp_is_refused(ramp: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        changed(batch_size_ramp=ramp)


def stop_after_3(rank: Any, given: Any) -> Any:
    return train(type(rank)(rank.index, rank.size, rank.rendezvous, RecordingReporter(stop_after=3)), given)


def test_a_ramp_is_the_same_for_any_ranks_and_after_an_interruption(workers: Workers, tmp_path: Path) -> None:
    recipe = changed(batch_size_ramp=RAMP, steps=5)
    reporter = RecordingReporter()
    wanted = train(single_rank(reporter), spec(tmp_path / "alone", recipe))
    assert reporter.curve("batch_size") == [4, 4, 8, 12, 16]
    assert wanted.tokens == 44 * recipe.sequence_length
    broken = spec(tmp_path / "gang", recipe, Execution(zero_stage=2))
    assert {type(error) for error, _ in workers.gang(stop_after_3, broken, ranks=3)} == {Stopped}
    for result, _ in workers.gang(train, spec(tmp_path / "gang", recipe, Execution(zero_stage=1)), ranks=2):
        assert isinstance(result, TrainingResult), result
        assert_same(state(result), state(wanted))
        assert result.curve == wanted.curve


# -- spikes


def test_what_a_spike_is() -> None:
    recipe = changed(loss_spike_factor=2.0, gradient_spike_factor=3.0, spike_window=8)
    losses, norms = [4.0, *[1.0] * 6, 0.1], [1.0] * 8
    assert reason_to_skip(recipe, losses, norms, 1.9, 2.9) is None
    assert reason_to_skip(recipe, losses, norms, 2.1, 2.9) == "loss 2.1 is more than 2 times the median 1"
    assert reason_to_skip(recipe, losses, norms, 1.9, 3.1) == "gradient norm 3.1 is more than 3 times the median 1"
    assert reason_to_skip(recipe, losses[1:], norms[1:], 99.0, 99.0) is None  # the window is not full yet
    assert reason_to_skip(recipe, [], [], float("nan"), 1.0) == "loss nan, gradient norm 1"
    assert reason_to_skip(RECIPE, losses, norms, 99.0, 99.0) is None  # no factor, no guard


def test_the_window_of_a_spike_moves() -> None:
    """After eight batches of another kind, earlier batches do not count any more."""
    recipe = changed(loss_spike_factor=2.0, spike_window=8)
    trainer = TrainerState()
    for loss in [1.0] * 9 + [1.9] * 8:
        assert trainer.take_batch(recipe, 16, BatchMeans(128, loss, {}, {}), 1.0) is None
    assert trainer.recent == [[1.9, 1.0]] * 8
    assert trainer.take_batch(recipe, 16, BatchMeans(128, 3.7, {}, {}), 1.0) is None
    assert (
        trainer.take_batch(recipe, 16, BatchMeans(128, 3.9, {}, {}), 1.0)
        == "loss 3.9 is more than 2 times the median 1.9"
    )
    assert trainer.recent[-1] == [3.7, 1.0]
    assert (trainer.step, trainer.updates, trainer.skipped, trainer.samples) == (19, 18, 1, 19 * 16)


def test_a_spike_is_skipped_and_survives_a_restart(workers: Workers, tmp_path: Path) -> None:
    """Sample 161 is in batch 11 (of 16 samples each), which is skipped: its gradient has no effect."""
    recipe = changed(steps=12, loss_spike_factor=5.0, spike_window=8, validation_every=12)
    reporter = RecordingReporter()
    wanted = train(single_rank(reporter), spec(tmp_path / "alone", recipe, loud=(161,)))
    assert wanted.skipped == 1
    assert [step for step, _ in wanted.curve] == [*range(1, 11), 12]
    assert [note for note in reporter.notes if "step 11: loss" in note and "this batch was skipped" in note]
    with pytest.raises(Stopped):
        train(single_rank(RecordingReporter(stop_after=10)), spec(tmp_path / "gang", recipe, loud=(161,)))
    [(result, _), _] = workers.gang(
        train, spec(tmp_path / "gang", recipe, Execution(zero_stage=2), loud=(161,)), ranks=2
    )
    assert_same(state(result), state(wanted))
    assert result.skipped == 1


def test_consecutive_spikes_end_training(tmp_path: Path) -> None:
    recipe = changed(steps=20, gradient_spike_factor=5.0, spike_window=8, skipped_batches_limit=2, validation_every=20)
    with pytest.raises(StageError, match=r"2 batches in a row were skipped, the last at step 10 \(gradient norm"):
        train(single_rank(), spec(tmp_path, recipe, loud=tuple(range(128, 320))))


# -- ends


def test_what_ends_training() -> None:
    recipe = changed(stop_after_tokens=100, stop_at_validation_loss=1.5, patience=2)
    assert reason_to_stop(recipe, 99, [3.0, 2.0, 2.5]) is None
    assert reason_to_stop(recipe, 100, []) == "100 tokens (stop_after_tokens)"
    assert reason_to_stop(recipe, 1, [3.0, 1.4]) == "validation loss 1.4 (stop_at_validation_loss)"
    assert reason_to_stop(recipe, 1, [3.0, 2.0, 2.5, float("nan")]) == "2 validations without a lower loss (patience)"
    assert reason_to_stop(recipe, 1, [3.0, 2.0, 2.5, 1.9, 2.0]) is None
    assert reason_to_stop(recipe, 1, [3.0, 2.0, 2.0, 2.0]) == "2 validations without a lower loss (patience)"
    assert reason_to_stop(RECIPE, 10**9, [0.0]) is None


def test_it_ends_by_tokens_and_does_not_resume(tmp_path: Path) -> None:
    """Three batches of 128 targets each. The last one is validated, although the recipe validates every fourth."""
    recipe = changed(steps=9, validation_every=4, stop_after_tokens=300)
    reporter = RecordingReporter()
    result = train(single_rank(reporter), spec(tmp_path, recipe))
    assert (result.steps, result.tokens, result.ended) == (3, 384, "384 tokens (stop_after_tokens)")
    assert [step for step, _ in result.validation_curve] == [0, 3]
    assert "ended after step 3 of 9: 384 tokens (stop_after_tokens)" in reporter.notes
    again = train(single_rank(reporter), spec(tmp_path, recipe))
    assert len(reporter.curve("loss")) == 3
    assert_same(state(again), state(result))


def test_it_ends_by_the_clock_and_reports_that_this_is_not_reproducible(workers: Workers, tmp_path: Path) -> None:
    recipe = changed(steps=10**6, stop_after_s=0.3, validation_every=10**6)
    answers = workers.gang(train, spec(tmp_path, recipe), ranks=2)
    results = [result for result, _ in answers]
    assert results[0].steps == results[1].steps < 10**6
    assert results[0].ended == results[1].ended == "0.3 s (stop_after_s): not reproducible"
    assert Path(results[0].checkpoint).is_dir()
    assert results[0].validation_curve[-1][0] == results[0].steps


def test_the_clock_includes_time_before_a_restart(tmp_path: Path) -> None:
    """An attempt without remaining time takes exactly one more step."""
    recipe = changed(steps=10**6, stop_after_s=1000.0, validation_every=10**6)
    with pytest.raises(Stopped):
        train(single_rank(RecordingReporter(stop_after=2)), spec(tmp_path, recipe))
    state_file = tmp_path / "checkpoints" / "step-00000002" / "state.json"
    state_of_run = json.loads(state_file.read_text())
    assert 0 < state_of_run["progress"]["seconds"] < 1000
    state_of_run["progress"]["seconds"] = 1000.0
    state_file.write_text(json.dumps(state_of_run))
    result = train(single_rank(), spec(tmp_path, recipe))
    assert (result.steps, result.ended) == (3, "1000 s (stop_after_s): not reproducible")


# -- what a step costs


def test_what_a_step_costs(workers: Workers, tmp_path: Path) -> None:
    execution = Execution(zero_stage=2, peak_tflops=1e-6)
    parameters = sum(parameter.numel() for parameter in Toy(17, 2).parameters())
    [(_, reporter), (_, other)] = workers.gang(train, spec(tmp_path, execution=execution), ranks=2)
    assert not other.points
    for step in range(RECIPE.steps):
        of = {name: reporter.curve(name)[step] for _, values in reporter.points if "loss" in values for name in values}
        parts = [of[f"seconds_{part}"] for part in ("computation", "communication", "data")]
        assert sum(parts) == pytest.approx(of["seconds_per_step"])
        assert of["seconds_communication"] > 0
        assert of["tokens_per_second"] == pytest.approx(128 / of["seconds_per_step"])
        flops = 6 * parameters * 64  # on each rank
        assert of["tflops_per_rank"] == pytest.approx(flops / of["seconds_per_step"] / 1e12)
        assert of["model_flops_utilisation"] == pytest.approx(of["tflops_per_rank"] / 1e-6)
    assert sum(reporter.curve("sent_bytes_per_step")) > 4 * parameters


# -- compiled blocks


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_compiled_blocks_are_the_same_for_any_ranks_and_stage(workers: Workers, tmp_path: Path) -> None:
    recipe = changed(compiled=True, steps=2)
    wanted = train(single_rank(), spec(tmp_path / "alone", recipe, blocks=1))
    eager = train(single_rank(), spec(tmp_path / "eager", changed(steps=2), blocks=1))
    assert wanted.loss == pytest.approx(eager.loss, rel=1e-4)
    with pytest.raises(Stopped):
        train(single_rank(RecordingReporter(stop_after=1)), spec(tmp_path / "gang", recipe, blocks=1))
    for result, _ in workers.gang(train, spec(tmp_path / "gang", recipe, Execution(zero_stage=3), blocks=1), ranks=2):
        assert isinstance(result, TrainingResult), result
        assert_same(state(result), state(wanted))


def test_without_a_compiler_there_is_one_clear_error(tmp_path: Path) -> None:
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    with (
        patch.object(cpp_builder, "get_cpp_compiler", side_effect=InvalidCxxCompiler()),
        pytest.raises(StageError, match=r"compiled: true needs a C\+\+ compiler"),
    ):
        loop.train(single_rank(), spec(tmp_path, changed(compiled=True)))
