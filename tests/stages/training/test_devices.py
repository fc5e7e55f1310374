"""Training on another device than the CPU: where tensors are, as far as it can be tested without a GPU."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch

from stages.model.config import DecoderConfig
from stages.model.decoder import Decoder
from stages.parallel.collectives import Collectives
from stages.training import memory_plan
from stages.training.language_modelling import next_token_loss
from stages.training.recipe import Execution, Recipe, Training
from stages.training.task import Loss, Task
from stages.training.zero import ShardedModel

BLOOM = DecoderConfig(vocab_size=50, hidden_size=24, layers=2, heads=6, context_length=16)
LLAMA = BLOOM.model_copy(
    update={
        "position": "rotary", "normalisation": "rms", "feed_forward": "swiglu", "embedding_norm": False,
        "biases": False, "tied_head": False, "key_value_heads": 2,
    }
)  # fmt: skip
RECIPE = Recipe(steps=2, global_batch_size=4, micro_batch_size=2, sequence_length=8)


def task(config: DecoderConfig) -> Task:
    with torch.device("meta"):
        model = Decoder(config)

    def loss(model: Any, samples: Any) -> Loss:
        tokens = torch.zeros(len(samples), 8, dtype=torch.int64)  # on the CPU, as data is read there
        return next_token_loss(model, (tokens, tokens, tokens), separate_documents=True)

    stem = [model.word_embeddings, model.position_embeddings, model.word_embeddings_layernorm]
    head = [model.ln_f, model.word_embeddings if model.lm_head is None else model.lm_head]
    return Task(
        model, lambda name, start, stop: torch.zeros(stop - start), list(model.blocks), loss, loss, 4,
        stem=stem, head=head,
    )  # fmt: skip


@pytest.mark.parametrize("config", [BLOOM, LLAMA], ids=["bloom", "llama"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_a_whole_step_stays_on_the_device(zero_stage: int, precision: str, config: DecoderConfig) -> None:
    """On torch's meta device, which refuses to combine its tensors with one that was left on the CPU."""
    recipe = RECIPE.model_copy(update={"precision": precision})
    execution = Execution.model_validate({"zero_stage": zero_stage, "recompute": "full"})
    trained = task(config)
    model = ShardedModel(trained, recipe, execution, Collectives(device=torch.device("meta")))
    model.initialise(trained.initial)
    for turn in model.turns():
        with model.micro_batch(turn):
            loss = trained.loss(trained.model, range(2)).total
            assert loss.device.type == "meta"
            loss.backward()
    with patch(
        "stages.training.zero.exact_sum_of_squares", return_value=1.0
    ):  # a number, which is all that leaves the device
        model.reduce()
    assert {one.gradient.device.type for one in model.groups if one.gradient is not None} == {"meta"}
    model.update(learning_rate=1e-3, scale=1.0, step=1)


DEEP = BLOOM.model_copy(update={"layers": 40})


def needed(**execution: Any) -> memory_plan.MemoryPlan:
    return memory_plan.predict(
        DEEP,
        RECIPE.model_copy(update={"sequence_length": 16}),
        Execution.model_validate({"ranks": 2, "zero_stage": 3} | execution),
    )


def test_offloaded_state_is_not_on_the_gpu() -> None:
    on_cpu, plain = needed(), needed(gpus_per_rank=1)
    assert plain == on_cpu
    assert plain.host == 0
    states = {"offload_optimizer": "host", "offload_parameters": "host"}
    moved = needed(gpus_per_rank=1, **states)
    assert needed(**states) == on_cpu  # on a CPU there is one memory
    assert (moved.parameters, moved.master, moved.optimizer) == (0, 0, 0)
    assert moved.host >= plain.parameters + plain.optimizer
    assert moved.device <= plain.device - plain.parameters - plain.optimizer
    # Moments alone: weights stay where computation is, and the CPU has its own master weights.
    moments = needed(gpus_per_rank=1, offload_optimizer="host")
    assert moments.parameters == plain.parameters
    assert moments.host >= plain.optimizer + plain.parameters
    again = needed(gpus_per_rank=1, recompute="full", offload_activations="host")
    assert again.host == DEEP.layers * 2 * 16 * 4 * DEEP.hidden_size
    assert again.device < needed(gpus_per_rank=1, recompute="full").device


def test_ranks_demand_gpus_and_memory_of_both_kinds() -> None:
    training = Training.model_validate({**RECIPE.model_dump(), "ranks": 2, "minimum_ranks": 1, "gpus_per_rank": 1})
    asked = memory_plan.demand(BLOOM, training)
    predicted = memory_plan.predict(BLOOM, training, training, 2)
    for rank in (asked.rank, asked.fallback_sizes[1]):
        assert rank.gpus == 1
        assert rank.gpu_memory_bytes > memory_plan.GPU_RUNTIME_BYTES
    assert asked.rank.memory_bytes == predicted.runtime + predicted.checkpoint
    assert asked.rank.memory_bytes + asked.rank.gpu_memory_bytes == predicted.total + memory_plan.GPU_RUNTIME_BYTES
    on_cpus = memory_plan.demand(BLOOM, training.model_copy(update={"gpus_per_rank": 0})).rank
    assert (on_cpus.gpus, on_cpus.gpu_memory_bytes, on_cpus.memory_bytes) == (0, 0, predicted.total)
    unknown = memory_plan.demand(None, training).rank
    assert (unknown.gpus, unknown.memory_bytes) == (1, 0)
