"""Training is bitwise the same for every number of ranks and every ZeRO stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from stages.parallel.collectives import Collectives
from stages.training import checkpoints, memory_usage
from stages.training.loop import train
from stages.training.recipe import Execution, Recipe
from stages.training.task import Loss, Task, TrainingResult, TrainingSpec
from stages.training.zero import ShardedModel
from tests.stages.training.toy import RECIPE, RecordingReporter, Workers, build, sample, single_rank, spec


def state(result: TrainingResult) -> dict[str, torch.Tensor]:
    """The final state of a run: master weights and both moments."""
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(Path(result.checkpoint).glob("*.safetensors")):
        tensors |= checkpoints._read(file)
    return tensors


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different, f"differ: {different}"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[TrainingResult, RecordingReporter]]:
    """One process, no sharding, in both precisions."""
    results = {}
    for precision in ("float32", "bfloat16"):
        reporter = RecordingReporter()
        recipe = RECIPE.model_copy(update={"precision": precision})
        path = tmp_path_factory.mktemp(precision)
        results[precision] = train(single_rank(reporter), spec(path, recipe, Execution(zero_stage=0))), reporter
    return results


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_ranks_and_stages(
    ranks: int,
    zero_stage: int,
    precision: str,
    workers: Workers,
    reference: dict[str, tuple[TrainingResult, RecordingReporter]],
    tmp_path: Path,
) -> None:
    expected, expected_reporter = reference[precision]
    recipe = RECIPE.model_copy(update={"precision": precision})
    answers = workers.gang(train, spec(tmp_path, recipe, Execution(zero_stage=zero_stage)), ranks=ranks)
    for result, _ in answers:
        assert isinstance(result, TrainingResult), result
        assert result.curve == expected.curve
        assert result.validation_curve == expected.validation_curve
        assert result.validation_metrics == expected.validation_metrics
        assert result.validation_groups == expected.validation_groups
    assert_same(state(answers[0][0]), state(expected))
    assert answers[0][1].curve("gradient_norm") == expected_reporter.curve("gradient_norm")


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_more_ranks_than_micro_batches(zero_stage: int, workers: Workers, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"global_batch_size": 6})
    expected = train(single_rank(), spec(tmp_path / "alone", recipe))
    answers = workers.gang(train, spec(tmp_path / "gang", recipe, Execution(zero_stage=zero_stage)), ranks=4)
    for result, _ in answers:
        assert isinstance(result, TrainingResult), result
    assert_same(state(answers[0][0]), state(expected))


FILES = {"offload_optimizer": "file", "offload_parameters": "file", "zero_stage": 3}
SAVING_MEMORY = [
    (2, "float32", {"recompute": "full", "zero_stage": 0, "bucket_bytes": 1024}),
    (2, "float32", {"recompute": "full", "recompute_every": 2, "zero_stage": 3}),
    (2, "bfloat16", {"recompute": "selective", "zero_stage": 2, "bucket_bytes": 1024}),
    (3, "float32", {"recompute": "selective", "zero_stage": 0, "bucket_bytes": 1024}),
    (1, "float32", FILES),
    (3, "bfloat16", {**FILES, "recompute": "full", "offload_activations": "file"}),
    (2, "bfloat16", {"offload_optimizer": "file", "zero_stage": 1, "bucket_bytes": 1024}),
    (2, "float32", {"offload_optimizer": "file", "zero_stage": 2}),
    (2, "float32", {"offload_parameters": "file", "zero_stage": 3, "recompute": "selective"}),
    (1, "bfloat16", {"offload_optimizer": "host", "recompute": "full", "offload_activations": "host"}),
]


@pytest.mark.parametrize(("ranks", "precision", "fields"), SAVING_MEMORY)
def test_saving_memory_changes_no_bit(
    ranks: int,
    precision: str,
    fields: dict[str, Any],
    workers: Workers,
    reference: dict[str, tuple[TrainingResult, RecordingReporter]],
    tmp_path: Path,
) -> None:
    recipe = RECIPE.model_copy(update={"precision": precision})
    [(result, _), *_] = workers.gang(train, spec(tmp_path, recipe, Execution.model_validate(fields)), ranks=ranks)
    assert isinstance(result, TrainingResult), result
    expected, _ = reference[precision]
    assert_same(state(result), state(expected))
    assert (result.curve, result.validation_curve) == (expected.curve, expected.validation_curve)


def test_recomputing_keeps_less(tmp_path: Path) -> None:
    """Bytes of tensors just before the backward pass."""
    kept = {}
    ways = [("none", "none"), ("selective", "none"), ("every third", "none"), ("full", "none"), ("full", "file")]
    for mode, place in ways:
        fields = {"recompute": mode, "offload_activations": place, "offload_folder": str(tmp_path)}
        if mode == "every third":
            fields |= {"recompute": "full", "recompute_every": "3"}
        task = build(RECIPE, width=64, blocks=6)
        model = ShardedModel(task, RECIPE, Execution.model_validate(fields), Collectives())
        model.initialise(task.initial)
        with model.micro_batch(0):
            with memory_usage.allocated() as found:
                loss = task.loss(task.model, range(16)).total
            loss.backward()
        kept[mode, place] = found.kept
    every_third = kept.pop(("every third", "none"))
    assert list(kept.values()) == sorted(kept.values(), reverse=True)
    inputs = 16 * RECIPE.sequence_length * 64 * 4
    # Of a block: norm in and out, and the wide layer before and after its activation; or one of each; or the input.
    assert kept["none", "none"] - kept["full", "none"] > 6 * 6 * inputs
    assert kept["selective", "none"] - kept["full", "none"] > 6 * 2.9 * inputs
    saved = (kept["none", "none"] - every_third) / (kept["none", "none"] - kept["full", "none"])
    assert saved == pytest.approx(2 / 6, abs=0.05)
    assert kept["full", "none"] - kept["full", "file"] > 4.9 * inputs


def test_it_learns(reference: dict[str, tuple[TrainingResult, RecordingReporter]], tmp_path: Path) -> None:
    result = train(single_rank(), spec(tmp_path, RECIPE.model_copy(update={"steps": 60})))
    assert result.validation_loss < 0.75 * result.initial_validation_loss


def build_uneven(recipe: Recipe) -> Task:
    """The toy task with 1 to 8 targets per sample, fewest at the beginning of a batch."""
    task = build(recipe)

    def loss(model: torch.nn.Module, numbers: Any) -> Loss:
        tokens = torch.stack([sample(number, recipe.sequence_length) for number in numbers])
        predicted = torch.tensor([1 + number % 16 // 2 for number in numbers])
        wanted = torch.arange(recipe.sequence_length) < predicted[:, None]
        logits = model(tokens[:, :-1])[wanted]
        return Loss(cross_entropy(logits, tokens[:, 1:][wanted], reduction="sum"), int(predicted.sum()))

    return replace(task, loss=loss, metric_names=())


def test_every_target_of_a_batch_weighs_the_same(workers: Workers, tmp_path: Path) -> None:
    """Eight uneven micro-batches on three ranks equal one micro-batch of all samples."""
    reporter = RecordingReporter()
    cut, whole = (
        TrainingSpec(build_uneven, "uneven", recipe, Execution(zero_stage=2), str(tmp_path / name))
        for name, recipe in (("cut", RECIPE), ("whole", RECIPE.model_copy(update={"micro_batch_size": 16})))
    )
    [(result, cut_reporter), *_] = workers.gang(train, cut, ranks=3)
    wanted = train(single_rank(reporter), whole)
    assert result.tokens == wanted.tokens == RECIPE.steps * 2 * sum(range(1, 9))
    for name in ("loss", "gradient_norm"):
        assert cut_reporter.curve(name) == pytest.approx(reporter.curve(name), rel=1e-5)


def test_a_loss_that_runs_the_model_twice_is_refused() -> None:
    """Groups would be closed after the first pass, before the gradients of the second one."""
    task = build(RECIPE)
    model = ShardedModel(task, RECIPE, Execution(zero_stage=0), Collectives())
    model.initialise(task.initial)
    with pytest.raises(RuntimeError, match="runs the model more than once"), model.micro_batch(0):
        (task.loss(task.model, range(2)).total + task.loss(task.model, range(2, 4)).total).backward()
