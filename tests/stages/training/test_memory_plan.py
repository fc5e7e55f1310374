"""The memory planner, compared with the ZeRO paper; and the cheaper settings that it suggests."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stages.model.config import DecoderConfig, ExpertsConfig
from stages.model.decoder import Decoder
from stages.model.parameters import parameter_count
from stages.training import buffers, memory_plan
from stages.training.recipe import Execution, Recipe, Training
from tests.stages.model.models import SHAPES, shaped

TABLE_1 = {  # the ZeRO paper's Table 1: GB a device by ranks, at stages 1, 2 and 3; exact values of the formulas
    (7.5e9, 4): (52.5, 41.25, 30.0),
    (7.5e9, 16): (35.625, 21.5625, 7.5),
    (7.5e9, 64): (31.40625, 16.640625, 1.875),
    (128e9, 1024): (513.5, 257.75, 2.0),
    (1e12, 64): (4187.5, 2218.75, 250.0),
    (1e12, 1024): (4011.71875, 2013.671875, 15.625),
}


@pytest.mark.parametrize(("parameters", "ranks"), TABLE_1)
def test_table_1_of_the_zero_paper(parameters: float, ranks: int) -> None:
    found = [memory_plan.state_bytes(parameters, stage, ranks) / 1e9 for stage in (1, 2, 3)]
    assert found == pytest.approx(TABLE_1[parameters, ranks], rel=1e-12)
    assert memory_plan.state_bytes(parameters, 0, ranks) == 16 * parameters


def test_table_2_of_the_zero_paper() -> None:
    """The largest model in 32 GB on 64 GPUs, in billions of parameters."""
    found = [memory_plan.largest_model(32e9, stage, 64) / 1e9 for stage in range(4)]
    assert found == pytest.approx([2.0, 7.6, 14.4, 128.0], abs=0.05)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_planner_lays_a_decoder_out_as_training_does(shape: str) -> None:
    config = shaped(shape, vocab_size=1001, hidden_size=60, layers=3)
    with torch.device("meta"):
        model = Decoder(config)
    stem = [model.word_embeddings, model.position_embeddings, model.word_embeddings_layernorm]
    head = [model.ln_f, model.word_embeddings if model.lm_head is None else model.lm_head]
    assert buffers.groups_of(model, list(model.blocks), stem, head) == memory_plan.groups_of(config)


def test_the_planner_counts_every_expert() -> None:
    experts = ExpertsConfig(per_layer=(0, 4), residual=True)
    config = DecoderConfig(vocab_size=1000, hidden_size=64, layers=2, heads=4, experts=experts)
    assert sum(group.numel for group in memory_plan.groups_of(config)) == parameter_count(config)


def test_higher_stages_and_recomputing_need_less() -> None:
    config = DecoderConfig(vocab_size=50_000, hidden_size=1024, layers=24, heads=16)
    recipe = Recipe(global_batch_size=32, micro_batch_size=1, precision="bfloat16")
    needed = [memory_plan.predict(config, recipe, Execution(ranks=8, zero_stage=stage)).total for stage in range(4)]
    assert needed == sorted(needed, reverse=True)
    assert len(set(needed)) == 4
    ways: list[dict[str, Any]] = [
        {},
        {"recompute": "full", "recompute_every": 4},
        {"recompute": "selective"},
        {"recompute": "full", "recompute_every": 2},
        {"recompute": "full"},
        {"recompute": "full", "offload_activations": "file"},
    ]
    recipe = recipe.model_copy(update={"sequence_length": 2048})
    kept = [memory_plan.predict(config, recipe, Execution.model_validate(way)).transient for way in ways]
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) == len(ways)


def test_what_is_suggested_needs_less_and_less_and_changes_no_fingerprint() -> None:
    config = DecoderConfig(vocab_size=50_000, hidden_size=1024, layers=24, heads=16)
    recipe = Recipe(global_batch_size=32, micro_batch_size=1, sequence_length=2048, precision="bfloat16")
    now = Training(ranks=8, zero_stage=1)
    suggested = list(memory_plan.cheaper_settings(now))
    needed = [memory_plan.predict(config, recipe, now.model_copy(update=fields)).total for fields in suggested]
    assert suggested[0] == {"zero_stage": 2}
    assert max(needed) < memory_plan.predict(config, recipe, now).total
    assert needed[-1] == min(needed)
    for fields in suggested:
        Training.model_validate(now.model_dump() | fields)
    alone = list(memory_plan.cheaper_settings(Training(ranks=1, zero_stage=0)))
    assert alone[0] == {"recompute": "selective"}  # a stage saves nothing where there is nobody to share with
    free = Training(ranks=8, zero_stage=1, free_order_ranks=8)
    for fields in memory_plan.cheaper_settings(free):
        Training.model_validate(free.model_dump() | fields)
