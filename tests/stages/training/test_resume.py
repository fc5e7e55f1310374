"""After any interruption, the result of training is bitwise that of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from stages.base import Rank, StageError, Stopped
from stages.parallel.collectives import Collectives
from stages.training import checkpoints
from stages.training.initial_weights import read_range
from stages.training.loop import train
from stages.training.recipe import Execution
from stages.training.task import Task, TrainingResult, TrainingSpec
from stages.training.zero import ShardedModel
from tests.stages.training import toy
from tests.stages.training.test_exactness import assert_same, state
from tests.stages.training.toy import RECIPE, RecordingReporter, Workers, single_rank, spec

EVERY_STEP = Execution(checkpoint_every_steps=1, checkpoints_kept=3)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train(single_rank(), spec(tmp_path_factory.mktemp("undisturbed")))


def assert_as_undisturbed(result: TrainingResult, undisturbed: TrainingResult) -> None:
    assert isinstance(result, TrainingResult), result
    assert_same(state(result), state(undisturbed))
    assert result.curve == undisturbed.curve
    assert result.validation_curve == undisturbed.validation_curve
    assert (result.tokens, result.validation_metrics) == (undisturbed.tokens, undisturbed.validation_metrics)


def stop_after_2(rank: Rank, spec: TrainingSpec) -> Any:
    reporter = RecordingReporter(stop_after=2 if rank.index == 0 else None)
    return train(Rank(rank.index, rank.size, rank.rendezvous, reporter), spec)


@pytest.mark.parametrize(("before", "after"), [((2, 3), (1, 0)), ((2, 1), (3, 3)), ((1, 2), (4, 2)), ((3, 0), (2, 1))])
def test_other_ranks_resume_at_another_stage(
    before: tuple[int, int], after: tuple[int, int], workers: Workers, undisturbed: TrainingResult, tmp_path: Path
) -> None:
    (ranks, stage), (ranks_after, stage_after) = before, after
    stopped = workers.gang(stop_after_2, spec(tmp_path, execution=Execution(zero_stage=stage)), ranks=ranks)
    assert [type(error) for error, _ in stopped] == [Stopped] * ranks
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    answers = workers.gang(train, spec(tmp_path, execution=Execution(zero_stage=stage_after)), ranks=ranks_after)
    for result, _ in answers:
        assert_as_undisturbed(result, undisturbed)
    assert "resumes from the checkpoint of step 2" in answers[0][1].notes


def build_and_die(recipe: Any, marker: str, die_at: int) -> Task:
    """The toy task, whose process is killed once, in the forward pass of sample `die_at`."""
    task = toy.build(recipe)

    def loss(model: Any, numbers: Any) -> Any:
        if die_at in numbers and not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return task.loss(model, numbers)

    return replace(task, loss=loss)


def gang_of_processes(spec: TrainingSpec, ranks: int) -> list[int]:
    """Run a gang on new processes; returns their exit codes."""
    context = toy.processes()
    rendezvous = toy.new_rendezvous()
    processes = [
        context.Process(target=train, args=(Rank(index, ranks, rendezvous, RecordingReporter()), spec))
        for index in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode or 0 for process in processes]


def test_a_rank_killed_during_a_step(undisturbed: TrainingResult, workers: Workers, tmp_path: Path) -> None:
    """Sample 45 is in the second half of step 3, which rank 1 computes: step 2 is saved, step 3 is not complete."""
    build = partial(build_and_die, marker=str(tmp_path / "killed"), die_at=45)
    doomed = TrainingSpec(build, "toy", RECIPE, EVERY_STEP, str(tmp_path / "scratch"))
    codes = gang_of_processes(doomed, 2)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] == 1  # the other rank failed and did not hang
    assert sorted(path.name for path in (tmp_path / "scratch" / "checkpoints").iterdir())[-1] == "step-00000002"
    [(result, _), _] = workers.gang(train, doomed, ranks=2)
    assert_as_undisturbed(result, undisturbed)


def damage(path: Path, how: str) -> None:
    victim = sorted(path.glob("*.safetensors"))[1]
    content = bytearray(victim.read_bytes())
    if how == "cut":
        victim.write_bytes(content[:-7])
    elif how == "flipped":
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    elif how == "missing":
        victim.unlink()
    elif how == "state garbage":
        (path / "state.json").write_text("{]")
    elif how == "state without digests":
        state = json.loads((path / "state.json").read_text())
        state["files"] = ["group-000.safetensors"]
        (path / "state.json").write_text(json.dumps(state))
    elif how == "path that leads elsewhere":
        state = json.loads((path / "state.json").read_text())
        state["files"] = {"../../../etc/passwd": {"bytes": 1, "sha256": "0"}}
        (path / "state.json").write_text(json.dumps(state))


@pytest.mark.parametrize(
    "how", ["cut", "flipped", "missing", "state garbage", "state without digests", "path that leads elsewhere"]
)
def test_a_damaged_checkpoint_is_skipped(how: str, undisturbed: TrainingResult, tmp_path: Path) -> None:
    reporter = RecordingReporter(stop_after=3)
    with pytest.raises(Stopped, match="stopped after step 3 of 4"):
        train(single_rank(reporter), spec(tmp_path, execution=EVERY_STEP))
    damage(tmp_path / "checkpoints" / "step-00000003", how)
    reporter = RecordingReporter()
    assert_as_undisturbed(train(single_rank(reporter), spec(tmp_path)), undisturbed)
    assert reporter.notes[0].startswith("skipped: checkpoint")
    assert reporter.notes[1] == "resumes from the checkpoint of step 2"


def test_another_recipe_starts_from_the_beginning(tmp_path: Path) -> None:
    train(single_rank(), spec(tmp_path))
    reporter = RecordingReporter()
    result = train(single_rank(reporter), spec(tmp_path, RECIPE.model_copy(update={"learning_rate": 0.02})))
    assert "belongs to another recipe" in reporter.notes[0]
    assert len(reporter.curve("loss")) == RECIPE.steps
    assert Path(result.checkpoint).is_dir()


def test_only_the_last_checkpoints_are_kept_and_half_written_ones_do_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    (folder / ".partial-step-00000009").mkdir(parents=True)
    result = train(single_rank(), spec(tmp_path, execution=Execution(checkpoint_every_steps=1, checkpoints_kept=2)))
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000003", "step-00000004"]
    weights = checkpoints.weights(Path(result.checkpoint))
    assert weights.keys() == dict(toy.Toy(17, 2).named_parameters()).keys()
    damage(Path(result.checkpoint), "flipped")
    with pytest.raises(StageError, match="does not have the digest"):
        checkpoints.weights(Path(result.checkpoint))


def test_a_batch_without_a_finite_loss_is_skipped(workers: Workers, tmp_path: Path) -> None:
    """Sample 20 is in the second of four batches."""
    reporter = RecordingReporter()
    result = train(single_rank(reporter), spec(tmp_path / "one", poisoned=(20,)))
    assert result.skipped == 1
    assert [step for step, _ in result.curve] == [1, 3, 4]
    assert "step 2: loss nan" in reporter.notes[0]
    [(shared, _), _] = workers.gang(
        train, spec(tmp_path / "two", execution=Execution(zero_stage=2), poisoned=(20,)), ranks=2
    )
    assert_same(state(shared), state(result))


def test_consecutive_bad_batches_end_training(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"skipped_batches_limit": 3})
    with pytest.raises(StageError, match=r"3 batches in a row were skipped, the last at step 3 \(loss nan"):
        train(single_rank(), spec(tmp_path, recipe, poisoned=tuple(range(0, 64, 16))))


def test_clipping_bounds_the_first_moment(tmp_path: Path) -> None:
    """After one step the first moment is (1 - beta1) times the clipped gradient."""
    recipe = RECIPE.model_copy(update={"steps": 1, "warmup_steps": 0, "gradient_clipping": 0.01})
    reporter = RecordingReporter()
    result = train(single_rank(reporter), spec(tmp_path, recipe))
    moments = [tensor for name, tensor in state(result).items() if name.startswith("first_moment/")]
    norm = sum(float(moment.double().square().sum()) for moment in moments) ** 0.5
    assert reporter.curve("gradient_norm")[0] > 0.1
    assert norm == pytest.approx(0.1 * 0.01, rel=1e-4)


def test_norms_and_biases_are_not_decayed(tmp_path: Path) -> None:
    """An epsilon that disables the gradient leaves decay only: matrices shrink, norms and biases stay."""
    fields = {"steps": 1, "warmup_steps": 0, "epsilon": 1e12}
    plain, decayed = (
        checkpoints.weights(Path(train(single_rank(), spec(tmp_path / str(decay), RECIPE.model_copy(
            update={**fields, "weight_decay": decay}))).checkpoint))
        for decay in (0.0, 0.5)
    )  # fmt: skip
    for name, weight in plain.items():
        shrunk = weight * (1 - 0.5 * RECIPE.learning_rate) if weight.dim() > 1 else weight
        assert decayed[name].allclose(shrunk, rtol=1e-5, atol=1e-9), name


def test_a_rank_reads_only_what_it_owns(tmp_path: Path) -> None:
    """Four ranks together read every element of the state exactly once."""
    path = Path(train(single_rank(), spec(tmp_path)).checkpoint)
    wanted = checkpoints.weights(path)
    read = dict.fromkeys(wanted, 0)

    def reading(file: Path) -> Any:
        def values(name: str, start: int, stop: int) -> torch.Tensor:
            read[name.split("/", 1)[1]] += stop - start
            with safe_open(file, framework="pt") as reader:
                return read_range(reader, name, start, stop)

        return values

    for rank in range(4):
        model = ShardedModel(toy.build(RECIPE), RECIPE, Execution(zero_stage=3), Collectives(rank, 4))
        for index, buffers in enumerate(model.groups):
            model.restore(index, reading(path / checkpoints.file_name(index)))
            with buffers.states() as states:
                for slot, start, stop in buffers.owned_parts():
                    expected = wanted[slot.name].reshape(-1)[start:stop]
                    assert torch.equal(buffers.part(states["master"], slot, start, stop), expected)
    assert read == {name: 3 * tensor.numel() for name, tensor in wanted.items()}


def build_later(recipe: Any, first: int) -> Task:
    """The toy task, with data that begins at sample `first`."""
    task = toy.build(recipe)
    return replace(task, loss=lambda model, numbers: task.loss(model, [number + first for number in numbers]))


def test_a_skipped_batch_has_no_effect(tmp_path: Path) -> None:
    """The optimizer does not count it; only the learning rate, which follows steps, would differ."""
    fields = {"schedule": "constant", "warmup_steps": 0}
    skipping = RECIPE.model_copy(update=fields | {"steps": 3})
    result = train(single_rank(), spec(tmp_path / "skipping", skipping, poisoned=(3,)))
    assert result.skipped == 1
    later = RECIPE.model_copy(update=fields | {"steps": 2})
    build = partial(build_later, first=RECIPE.global_batch_size)
    wanted = TrainingSpec(build, "toy", later, Execution(), str(tmp_path / "later"))
    assert_same(state(result), state(train(single_rank(), wanted)))
