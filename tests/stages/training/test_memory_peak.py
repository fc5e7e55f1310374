"""The planner's bound of a step's memory, compared with the memory of tensors: never below it, and close to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from stages.artifacts.windows import Batch
from stages.base import Rank
from stages.model.config import DecoderConfig, ExpertsConfig
from stages.model.decoder import Decoder
from stages.model.initialise import initial_values
from stages.model.parameters import parameter_count
from stages.parallel.collectives import Collectives
from stages.parallel.process_group import process_group
from stages.training import memory_peak, memory_plan, memory_usage
from stages.training.language_modelling import next_token_loss
from stages.training.recipe import Execution, Recipe
from stages.training.task import Task
from stages.training.zero import ShardedModel
from tests.stages.model.models import SHAPES, shaped
from tests.stages.training.toy import Workers, single_rank

SMALL: dict[str, Any] = {"vocab_size": 503, "hidden_size": 96, "layers": 4, "heads": 6}
MODELS = {name: shaped(name, **SMALL) for name in SHAPES}
MODELS["wide"] = DecoderConfig(vocab_size=8003, hidden_size=96, layers=2, heads=6)  # an embedding larger than all else
MODELS["experts"] = DecoderConfig(**SMALL, experts=ExpertsConfig(per_layer=(0, 4, 0, 4), top_k=2))
MODELS["residual"] = DecoderConfig(**SMALL, experts=ExpertsConfig(per_layer=(0, 4, 0, 4), residual=True))

Measured = tuple[int, int]  # most bytes of a step beyond parameters and optimizer; most bytes of gradients kept


def batch(config: DecoderConfig, recipe: Recipe, number: int) -> Batch:
    shape = (recipe.micro_batch_size, recipe.sequence_length + 1)
    tokens = torch.randint(0, config.vocab_size, shape, generator=torch.Generator().manual_seed(number))
    documents = (torch.arange(recipe.sequence_length) > recipe.sequence_length // 3).long().expand(shape[0], -1)
    return tokens[:, :-1], tokens[:, 1:], documents


def start_exchange(begin: Callable[..., Any], *arguments: Any) -> Callable[[], list[Tensor]]:
    """Gives gloo's thread time to release what it has sent: the profiler does not see frees in that thread."""
    wait = begin(*arguments)

    def waited() -> list[Tensor]:
        received: list[Tensor] = wait()
        time.sleep(0.002)
        return received

    return waited


def measure(
    rank: Rank, config: DecoderConfig, recipe: Recipe, execution: Execution, frozen: Collection[str] = ()
) -> Measured:
    """Measure the second step of training."""
    begin = Collectives.start_exchange
    later = partial(start_exchange, begin)
    with (
        process_group(rank, 60) as collectives,
        patch.object(Collectives, "start_exchange", lambda self, *arguments: later(self, *arguments)),
        torch.device("meta"),
    ):
        decoder = Decoder(config)
        for name, parameter in decoder.named_parameters():
            parameter.requires_grad_(name not in frozen)
        unused: Any = None
        task = Task(
            decoder, partial(initial_values, config, 1), list(decoder.blocks), unused, unused, 1,
            stem=[decoder.word_embeddings, decoder.position_embeddings, decoder.word_embeddings_layernorm],
            head=[decoder.ln_f, decoder.word_embeddings if decoder.lm_head is None else decoder.lm_head],
        )  # fmt: skip
        with torch.device("cpu"):
            model = ShardedModel(task, recipe, execution, collectives)
            model.initialise(task.initial)

            def step(number: int) -> None:
                for turn in model.turns():
                    with model.micro_batch(turn):
                        routings: Any = [] if config.experts else None
                        next_token_loss(decoder, batch(config, recipe, turn), True, routings).total.backward()
                model.reduce()
                model.update(1e-3, 1e-3, number)

            step(1)
            with memory_usage.allocated() as allocated:
                step(2)
    return allocated.peak, model.most_gradient_bytes


def hold(found: list[Measured], config: DecoderConfig, recipe: Recipe, execution: Execution, within: float) -> None:
    """Check the bound: at most `within` times the measured peak, apart from the constant for kernels."""
    needed = memory_plan.predict(config, recipe, execution)
    peak, gradients = (max(measured) for measured in zip(*found, strict=True))
    assert gradients == needed.gradients
    bound = needed.gradients + needed.transient
    assert peak <= bound <= within * peak + memory_plan.KERNEL_BYTES, f"{peak} measured, {bound} predicted"


ALONE: list[tuple[str, dict[str, Any]]] = [
    *((model, {}) for model in MODELS),
    ("bloom", {"global_batch_size": 10}),
    ("bloom", {"recompute": "selective"}),
    ("bloom", {"recompute": "full", "recompute_every": 2, "precision": "bfloat16"}),
    ("llama", {"recompute": "full"}),
    ("llama", {"precision": "bfloat16", "zero_stage": 2, "global_batch_size": 6}),
    ("experts", {"recompute": "full", "precision": "bfloat16"}),
]
SHARED: list[tuple[str, dict[str, Any]]] = [
    ("wide", {"zero_stage": 0}),
    ("bloom", {"zero_stage": 1, "global_batch_size": 12}),
    ("bloom", {"zero_stage": 1, "global_batch_size": 12, "free_order_ranks": 2}),
    ("wide", {"zero_stage": 1, "bucket_bytes": 1 << 26}),
    ("bloom", {"zero_stage": 2, "global_batch_size": 8}),
    ("wide", {"zero_stage": 2, "bucket_bytes": 1 << 26}),
    ("llama", {"zero_stage": 3, "recompute": "full"}),
    ("wide", {"zero_stage": 3, "precision": "bfloat16"}),
]


@pytest.mark.parametrize(("model", "fields"), ALONE, ids=str)
def test_a_single_rank_never_needs_more_than_was_planned(model: str, fields: dict[str, Any]) -> None:
    recipe, execution = split({"global_batch_size": 2, "zero_stage": 0} | fields)
    # Which expert a token goes to is not known, nor how much of a block is freed while it is computed again.
    within = 1.45 if MODELS[model].experts else 1.35 if execution.recompute != "none" else 1.25
    hold([measure(single_rank(), MODELS[model], recipe, execution)], MODELS[model], recipe, execution, within)


@pytest.mark.parametrize(("model", "fields"), SHARED, ids=str)
def test_ranks_never_need_more_than_was_planned(model: str, fields: dict[str, Any], workers: Workers) -> None:
    recipe, execution = split({"global_batch_size": 4, "ranks": 2, "bucket_bytes": 1 << 16} | fields)
    answers = [found for found, _ in workers.gang(measure, MODELS[model], recipe, execution, ranks=2)]
    assert all(isinstance(found, tuple) for found in answers), answers
    hold(answers, MODELS[model], recipe, execution, within=1.3)


def split(fields: dict[str, Any]) -> tuple[Recipe, Execution]:
    fields = {"micro_batch_size": 2, "sequence_length": 128} | fields
    return tuple(kind(**{k: v for k, v in fields.items() if k in kind.model_fields}) for kind in (Recipe, Execution))  # type: ignore[return-value]


def test_the_bound_of_the_largest_bloom(tmp_path: Path) -> None:
    """It is computed at once, and higher stages save at least what the paper's formula says."""
    config = DecoderConfig(vocab_size=250_880, hidden_size=14336, layers=70, heads=112)
    recipe = Recipe(global_batch_size=2048, micro_batch_size=2, sequence_length=2048, precision="bfloat16")
    needed = [
        memory_plan.predict(config, recipe, Execution.model_validate({"ranks": 384, "zero_stage": stage})).total
        for stage in range(4)
    ]
    assert needed == sorted(needed, reverse=True)
    saved = memory_plan.state_bytes(parameter_count(config), 0, 384, memory_plan.BFLOAT16) - memory_plan.state_bytes(
        parameter_count(config), 3, 384, memory_plan.BFLOAT16
    )
    assert needed[0] - needed[3] > saved


@pytest.mark.parametrize(
    ("micro_batches", "ranks", "stage", "sums"),
    [(8, 1, 1, {(1, 1, 2, 1, 2, 2, 3, 1)}), (8, 8, 1, {(1,)}), (8, 4, 0, {(1, 1)}), (8, 2, 2, {(1, 1, 2, 1)}),
     (8, 4, 3, {(1, 1)}), (8, 3, 1, {(1, 1), (1, 1, 2), (1, 2, 2)}), (5, 2, 3, {(1, 1, 2)})],
)  # fmt: skip
def test_how_many_partial_sums_are_held(micro_batches: int, ranks: int, stage: int, sums: set[tuple[int, ...]]) -> None:
    config = DecoderConfig(vocab_size=100, hidden_size=16, layers=1, heads=2)
    assert memory_peak.Setting(memory_plan.groups_of(config), ranks, stage, 4, 1 << 20, micro_batches).sums == sums
