"""Gradients added in the order of computation give the same bits for the same number of ranks only."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from pydantic import ValidationError

from stages.base import Rank, RuntimeMarker, StageError
from stages.parallel.collectives import Collectives
from stages.training.loop import train
from stages.training.recipe import Execution, Training
from stages.training.task import TrainingResult, TrainingSpec
from tests.stages.training.test_exactness import assert_same, state
from tests.stages.training.toy import RECIPE, Workers, single_rank, spec


def trained(workers: Workers, path: Path, ranks: int, zero_stage: int, **fields: Any) -> TrainingResult:
    recipe = RECIPE.model_copy(update=fields)
    execution = Execution.model_validate({"zero_stage": zero_stage, "ranks": ranks})
    [(result, _), *_] = workers.gang(train, spec(path, recipe, execution), ranks=ranks)
    assert isinstance(result, TrainingResult), result
    return result


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_both_stages_train_to_the_same_bits(ranks: int, workers: Workers, tmp_path: Path) -> None:
    fields = {"free_order_ranks": ranks, "global_batch_size": 10 * RECIPE.micro_batch_size}
    first = trained(workers, tmp_path / "0", ranks, 0, **fields)
    assert_same(state(first), state(trained(workers, tmp_path / "1", ranks, 1, **fields)))
    in_order = trained(workers, tmp_path / "order", ranks, 1, global_batch_size=fields["global_batch_size"])
    ours, theirs = state(first), state(in_order)
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)  # another order of sums
    assert first.curve[-1][1] == pytest.approx(in_order.curve[-1][1], rel=1e-4)


def test_fewer_micro_batches_than_ranks(workers: Workers, tmp_path: Path) -> None:
    fields = {"free_order_ranks": 4, "global_batch_size": 3 * RECIPE.micro_batch_size}
    one, other = (trained(workers, tmp_path / str(stage), 4, stage, **fields) for stage in (0, 1))
    assert_same(state(one), state(other))


def train_natively(rank: Rank, spec: TrainingSpec) -> TrainingResult:
    """Train as on NCCL, with the backend's reduce-scatter, which gloo implements as well."""
    with patch.object(Collectives, "has_reduce_scatter", True):
        return train(rank, spec)


@pytest.mark.parametrize(("zero_stage", "bucket_bytes", "batches"), [(0, 1 << 20, 10), (1, 1024, 10), (1, 1 << 20, 2)])
def test_training_with_the_backends_reduce_scatter(
    zero_stage: int, bucket_bytes: int, batches: int, workers: Workers, tmp_path: Path
) -> None:
    fields = {"free_order_ranks": 3, "global_batch_size": batches * RECIPE.micro_batch_size}
    execution = Execution.model_validate({"zero_stage": zero_stage, "bucket_bytes": bucket_bytes})
    natively = spec(tmp_path / "natively", RECIPE.model_copy(update=fields), execution)
    [(result, _), *_] = workers.gang(train_natively, natively, ranks=3)
    assert isinstance(result, TrainingResult), result
    ours, theirs = state(result), state(trained(workers, tmp_path / "ours", 3, zero_stage, **fields))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5)


def test_another_number_of_ranks_is_refused_before_a_step(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="1 rank would train"):
        train(single_rank(), spec(tmp_path, RECIPE.model_copy(update={"free_order_ranks": 2})))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"ranks": 4}, "set ranks to 2"),
        ({"ranks": 2, "minimum_ranks": 1}, "leave minimum_ranks out"),
        ({"ranks": 2, "zero_stage": 2}, "zero_stage 0 and 1"),
    ],
)
def test_settings_that_would_change_the_bits_are_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Training(free_order_ranks=2, **fields)


def test_it_is_part_of_the_fingerprint() -> None:
    def is_runtime(field: str) -> bool:
        return any(isinstance(mark, RuntimeMarker) for mark in Training.model_fields[field].metadata)

    assert is_runtime("ranks")
    assert not is_runtime("free_order_ranks")
