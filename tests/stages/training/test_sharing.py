"""ZeRO: bytes held and bytes sent equal the closed forms exactly, and planted bugs are detected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from stages.base import Rank
from stages.parallel.collectives import Collectives
from stages.parallel.process_group import process_group
from stages.training import memory_usage
from stages.training.buffers import groups_of
from stages.training.loop import train
from stages.training.recipe import Execution
from stages.training.task import TrainingResult, TrainingSpec
from stages.training.zero import ShardedModel
from tests.stages.training.test_exactness import assert_same, state
from tests.stages.training.toy import RECIPE, Toy, Workers, build, single_rank, spec

WIDTH, BLOCKS = 17, 2
GROUPS = groups_of(model := Toy(WIDTH, BLOCKS), list(model.blocks), [model.embedding], [model.embedding, model.norm])


def padded(ranks: int) -> list[int]:
    """Padded elements of each group: the tied embedding, the blocks, the norm of the head."""
    assert [group.name for group in GROUPS] == ["shared", "block-000", "block-001", "head"]
    return [group.padded(ranks) for group in GROUPS]


# -- bytes held


def held_bytes(rank: Rank, spec: TrainingSpec) -> dict[str, int]:
    """Bytes of distinct storage by part, after the gradient of a batch was reduced."""
    recipe = spec.recipe
    with process_group(rank, 30) as collectives:
        task = build(recipe, WIDTH, BLOCKS)
        model = ShardedModel(task, recipe, spec.execution, collectives)
        model.initialise(task.initial)
        for turn in model.turns():
            with model.micro_batch(turn):
                start = min(turn, model.micro_batches - 1) * recipe.micro_batch_size
                task.loss(task.model, range(start, start + recipe.micro_batch_size)).total.backward()
        model.reduce()
        found = memory_usage.held(model)
        assert all(parameter.grad is None for parameter in task.model.parameters())
        return found


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("ranks", [2, 4])
def test_held_bytes_equal_the_closed_form(
    ranks: int, zero_stage: int, precision: str, workers: Workers, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"precision": precision})
    whole = sum(padded(ranks))
    share = [whole if stage > zero_stage else whole // ranks for stage in (1, 2, 3)]
    # Where parameters are float32 they are the master weights, and counted as parameters.
    master, parameters = (0, 4) if precision == "float32" else (4, 2)
    expected = {"parameters": parameters * share[2], "gradients": 4 * share[1], "optimizer": 8 * share[0]}
    expected["master"] = master * share[0]
    expected["files"] = 0
    if zero_stage == 1:
        expected["gradients"] = 4 * whole // ranks  # after the exchange: less than the paper's stage 1 keeps
    for found, _ in workers.gang(held_bytes, spec(tmp_path, recipe, Execution(zero_stage=zero_stage)), ranks=ranks):
        assert found == expected


def most_groups_whole(rank: Rank, spec: TrainingSpec) -> int:
    """The most groups that are gathered at once at stage 3, in forward and backward passes."""
    with process_group(rank, 30) as collectives:
        task = build(spec.recipe, WIDTH, blocks=4)
        model = ShardedModel(task, spec.recipe, Execution(zero_stage=3), collectives)
        most = 0

        def count(*_: Any) -> None:
            nonlocal most
            most = max(most, sum(buffers.full.untyped_storage().nbytes() > 0 for buffers in model.groups))

        model.initialise(task.initial)
        for module in (
            task.model.get_submodule("embedding"),
            task.model.get_submodule("norm"),
            *(part for one in task.blocks for part in one.children()),
        ):
            module.register_forward_hook(count)
        for block in task.blocks:
            block.get_submodule("down").register_full_backward_hook(count)
        with model.micro_batch(0):
            task.loss(task.model, range(2)).total.backward()
        return most


def test_stage_3_gathers_the_current_and_the_next_position(workers: Workers, tmp_path: Path) -> None:
    """The tied embedding and the norm are gathered with the last block; elsewhere it is one group and the next."""
    assert [most for most, _ in workers.gang(most_groups_whole, spec(tmp_path), ranks=2)] == [3, 3]


# -- bytes sent


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("ranks", [2, 4])
def test_sent_bytes_equal_the_closed_form(
    ranks: int, zero_stage: int, precision: str, workers: Workers, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"precision": precision, "steps": 3, "validation_every": 3})
    answers = workers.gang(train, spec(tmp_path, recipe, Execution(zero_stage=zero_stage)), ranks=ranks)
    shared, first, last, head = padded(ranks)
    whole = shared + first + last + head
    element = 4 if precision == "float32" else 2
    share = ranks - 1  # times padded / ranks: what a rank sends of a whole
    turns = recipe.micro_batches // ranks
    validations = 2  # before and after, each of 10 samples in micro-batches of 2
    passes = -(-5 // ranks)
    gradients = {0: 2, 1: 1, 2: turns, 3: turns}[zero_stage] * recipe.steps * whole
    parameters = 0 if zero_stage == 0 else (recipe.steps + 1) * whole  # once for the initial values
    if zero_stage == 3:
        # A tied embedding is used before the blocks and after them. The last block stays from one pass to the other.
        forward = 2 * shared + first + last + head
        parameters = recipe.steps * turns * (forward + first) + validations * passes * forward
        assert forward + first < 2 * whole
    for result, _ in answers:
        assert isinstance(result, TrainingResult), result
        assert result.sent_bytes["gradients"] == gradients * 4 * share // ranks
        assert result.sent_bytes.get("parameters", 0) == parameters * element * share // ranks
        # What ranks agree on (losses, flags, the norm) does not grow with the model.
        assert result.sent_bytes["control"] < 1500 * recipe.steps


# -- planted bugs


@contextmanager
def no_reduce() -> Iterator[None]:
    def exchange(
        self: Collectives, rows: list[torch.Tensor], row_counts: list[int], columns: slice
    ) -> Callable[[], list[torch.Tensor]]:
        mine = [row.view(self.ranks, -1)[self.rank, columns] for row in rows]
        width = columns.stop - columns.start
        return lambda: [mine[row].clone() if self.rank == rank else torch.zeros(width)
                        for rank, count in enumerate(row_counts) for row in range(count)]  # fmt: skip

    def no_sum(self: Collectives, row: torch.Tensor, columns: slice) -> Callable[[], None]:
        return lambda: None

    with patch.object(Collectives, "start_exchange", exchange), patch.object(Collectives, "start_pair_sum", no_sum):
        yield


@contextmanager
def shard_off_by_one() -> Iterator[None]:
    whole, whole_sum = Collectives.start_exchange, Collectives.start_pair_sum

    def exchange(self: Collectives, *arguments: Any) -> Callable[[], list[torch.Tensor]]:
        received = whole(self, *arguments)
        return lambda: [shard.roll(1) for shard in received()]

    def sum_of_two(self: Collectives, row: torch.Tensor, columns: slice) -> Callable[[], None]:
        wait = whole_sum(self, row, columns)

        def wait_and_shift() -> None:
            wait()
            row.copy_(row.roll(1))

        return wait_and_shift

    with (
        patch.object(Collectives, "start_exchange", exchange),
        patch.object(Collectives, "start_pair_sum", sum_of_two),
    ):
        yield


@contextmanager
def no_gather() -> Iterator[None]:
    def gather(
        self: Collectives, full: torch.Tensor, purpose: str = "", shard: torch.Tensor | None = None
    ) -> Callable[[], None]:
        if shard is not None:
            full.zero_().chunk(self.ranks)[self.rank].copy_(shard)
        return lambda: None

    whole_sum = Collectives.start_pair_sum

    def sum_of_two(self: Collectives, row: torch.Tensor, columns: slice) -> Callable[[], None]:
        before, wait = row.clone().chunk(2), whole_sum(self, row, columns)

        def wait_and_restore() -> None:
            wait()
            row.chunk(2)[1 - self.rank].copy_(before[1 - self.rank])

        return wait_and_restore

    with patch.object(Collectives, "start_all_gather", gather), patch.object(Collectives, "start_pair_sum", sum_of_two):
        yield


@contextmanager
def sum_for_mean() -> Iterator[None]:
    whole = ShardedModel.update

    def update(self: ShardedModel, rate: float, scale: float, step: int) -> None:
        whole(self, rate, scale * self.collectives.ranks, step)

    with patch.object(ShardedModel, "update", update):
        yield


BUGS: dict[str, Callable[[], Any]] = {
    bug.__name__: bug for bug in (no_reduce, shard_off_by_one, no_gather, sum_for_mean)
}


def train_with(rank: Rank, spec: TrainingSpec, bug: str) -> TrainingResult:
    with BUGS[bug]():
        return train(rank, spec)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train(single_rank(), spec(tmp_path_factory.mktemp("undisturbed")))


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_shows(
    bug: str, zero_stage: int, undisturbed: TrainingResult, workers: Workers, tmp_path: Path
) -> None:
    """Each of these classic mistakes changes the final state, however plausible the loss is."""
    execution = Execution.model_validate({"zero_stage": zero_stage})
    [(result, _), *_] = workers.gang(train_with, spec(tmp_path, execution=execution), bug, ranks=2)
    assert isinstance(result, TrainingResult), result
    with pytest.raises(AssertionError, match="differ"):
        assert_same(state(result), state(undisturbed))
