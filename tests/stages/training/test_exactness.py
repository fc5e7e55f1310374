"""Training is the same to the bit for every number of ranks and every ZeRO stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stages.training import checkpoints
from stages.training.collectives import Collectives
from stages.training.loop import train
from stages.training.recipe import Execution
from stages.training.task import TrainingResult
from stages.training.zero import ShardedModel
from tests.stages.training.toy import RECIPE, Heard, Workers, alone, build, spec


def state(result: TrainingResult) -> dict[str, torch.Tensor]:
    """Everything that a run ends with: master weights and both moments."""
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(Path(result.checkpoint).glob("*.safetensors")):
        tensors |= checkpoints._read(file)
    return tensors


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different, f"differ: {different}"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[TrainingResult, Heard]]:
    """One process, no sharding, in both precisions."""
    results = {}
    for precision in ("float32", "bfloat16"):
        heard = Heard()
        recipe = RECIPE.model_copy(update={"precision": precision})
        path = tmp_path_factory.mktemp(precision)
        results[precision] = train(alone(heard), spec(path, recipe, Execution(zero_stage=0))), heard
    return results


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_ranks_and_stages(
    ranks: int,
    zero_stage: int,
    precision: str,
    workers: Workers,
    reference: dict[str, tuple[TrainingResult, Heard]],
    tmp_path: Path,
) -> None:
    expected, expected_heard = reference[precision]
    recipe = RECIPE.model_copy(update={"precision": precision})
    answers = workers.gang(train, spec(tmp_path, recipe, Execution(zero_stage=zero_stage)), ranks=ranks)
    for result, _ in answers:
        assert isinstance(result, TrainingResult), result
        assert result.curve == expected.curve
        assert result.validation_curve == expected.validation_curve
        assert result.validation_metrics == expected.validation_metrics
        assert result.validation_groups == expected.validation_groups
    assert_same(state(answers[0][0]), state(expected))
    assert answers[0][1].curve("gradient_norm") == expected_heard.curve("gradient_norm")


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_more_ranks_than_micro_batches(zero_stage: int, workers: Workers, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"global_batch_size": 6})
    expected = train(alone(), spec(tmp_path / "alone", recipe))
    answers = workers.gang(train, spec(tmp_path / "gang", recipe, Execution(zero_stage=zero_stage)), ranks=4)
    for result, _ in answers:
        assert isinstance(result, TrainingResult), result
    assert_same(state(answers[0][0]), state(expected))


@pytest.mark.parametrize("zero_stage", [1, 3])
def test_recomputed_activations(
    zero_stage: int, workers: Workers, reference: dict[str, tuple[TrainingResult, Heard]], tmp_path: Path
) -> None:
    execution = Execution(zero_stage=zero_stage, recompute="full")
    [(result, _), _] = workers.gang(train, spec(tmp_path, execution=execution), ranks=2)
    assert_same(state(result), state(reference["float32"][0]))


def test_recomputing_keeps_less(tmp_path: Path) -> None:
    """Bytes that autograd saves for the backward pass, with and without."""
    saved = []
    for mode in ("none", "full"):
        task = build(RECIPE)
        model = ShardedModel(task, RECIPE, Execution(recompute=mode), Collectives())
        total = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.nbytes
            return tensor

        with model.micro_batch(0):
            with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                loss = task.loss(task.model, range(2)).total
            loss.backward()
        saved.append(total)
    assert saved[1] < 0.6 * saved[0]


def test_it_learns(reference: dict[str, tuple[TrainingResult, Heard]], tmp_path: Path) -> None:
    result = train(alone(), spec(tmp_path, RECIPE.model_copy(update={"steps": 60})))
    assert result.validation_loss < 0.75 * result.initial_validation_loss
