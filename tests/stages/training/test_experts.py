"""Training of experts is bitwise the same for every number of ranks and every ZeRO stage."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.tokens import TokenDataset
from stages.experts.moe import expert_training_task
from stages.experts.upcycle import upcycle
from stages.model.config import expert_config
from stages.training.loop import train
from stages.training.recipe import Execution, Recipe
from stages.training.task import TrainingResult, TrainingSpec
from tests.stages.training.test_exactness import assert_same, state
from tests.stages.training.toy import Workers, single_rank

RECIPE = Recipe(
    steps=3, global_batch_size=8, micro_batch_size=2, sequence_length=32, learning_rate=0.003, validation_every=3
)


@pytest.fixture(scope="module")
def converted(dense: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("experts")
    config = expert_config(dense.config, (3, 0, 4), top_k=1, granularity=2, residual=True)
    weights = upcycle(dense.state_dict(), dense.config, config, seed=5)
    return Checkpoint.save(path, weights, config, dense.tokenizer_path, {})


@pytest.mark.parametrize(("ranks", "zero_stage"), [(2, 1), (2, 3), (3, 2)])
def test_ranks_and_stages(
    ranks: int, zero_stage: int, converted: Checkpoint, tokens: TokenDataset, workers: Workers, tmp_path: Path
) -> None:
    def spec(name: str, stage: int) -> TrainingSpec:
        build = partial(
            expert_training_task,
            converted=converted.path,
            tokens=tokens.path,
            load_balancing=0.05,
            separate_documents=True,
        )
        execution = Execution.model_validate({"zero_stage": stage})
        return TrainingSpec(build, "experts", RECIPE, execution, str(tmp_path / name))

    wanted = train(single_rank(), spec("alone", 0))
    assert wanted.validation_loss != wanted.initial_validation_loss  # the weights have changed
    for result, _ in workers.gang(train, spec("gang", zero_stage), ranks=ranks):
        assert isinstance(result, TrainingResult), result
        assert_same(state(result), state(wanted))
        assert result.validation_metrics == wanted.validation_metrics
