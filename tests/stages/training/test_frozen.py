"""Parameters with `requires_grad=False` are not trained, and cost only their weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.base import StageError
from stages.model.config import DecoderConfig
from stages.model.decoder import Decoder
from stages.model.initialise import initial_values
from stages.model.parameters import parameter_shapes
from stages.parallel.collectives import Collectives
from stages.training import buffers, checkpoints, memory_plan, memory_usage
from stages.training.freezing import frozen_parameters
from stages.training.loop import train
from stages.training.pretrain import Pretrain
from stages.training.recipe import Execution, Recipe
from stages.training.task import Task, TrainingResult, TrainingSpec
from stages.training.zero import ShardedModel
from tests.stages.model.models import SHAPES, shaped
from tests.stages.training import test_memory_peak as peaks
from tests.stages.training import toy
from tests.stages.training.test_exactness import assert_same, state
from tests.stages.training.texts import token_set
from tests.stages.training.toy import RECIPE, RecordingReporter, Workers, single_rank
from tests.support import run_stage

# Parts of the toy model, whose embedding is tied to the head.
FROZEN: dict[str, tuple[str, ...]] = {
    "the tied embedding": ("embedding",),
    "the first block": ("blocks.0",),
    "the embedding and the first block": ("embedding", "blocks.0"),
    "all blocks": ("blocks",),
    "a part of each block": ("blocks.0.up", "blocks.1.norm"),
    "all but one bias": (
        "embedding",
        "norm",
        "blocks.0",
        "blocks.1.up",
        "blocks.1.norm",
        "blocks.1.down.weight",
    ),
}


def is_frozen(name: str, frozen: Sequence[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in frozen)


def build(recipe: Recipe, frozen: Sequence[str]) -> Task:
    task = toy.build(recipe)
    for name, parameter in task.model.named_parameters():
        parameter.requires_grad_(not is_frozen(name, frozen))
    return task


def spec(path: Path, frozen: Sequence[str], execution: Execution = toy.WHOLE, recipe: Recipe = RECIPE) -> TrainingSpec:
    return TrainingSpec(partial(build, frozen=frozen), "toy", recipe, execution, str(path))


def initial(recipe: Recipe = RECIPE) -> dict[str, torch.Tensor]:
    task = toy.build(recipe)
    return {
        name: task.initial(name, 0, parameter.numel()).view(parameter.shape)
        for name, parameter in task.model.named_parameters()
    }


def trained_by_torch(frozen: Sequence[str]) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The weights and gradient norms of the same training with torch's AdamW and gradient clipping."""
    from stages.training.schedule import learning_rate

    task = build(RECIPE, frozen)
    task.model.to_empty(device="cpu")
    for name, parameter in task.model.named_parameters():
        parameter.data.copy_(task.initial(name, 0, parameter.numel()).view(parameter.shape))
    named = [(name, one) for name, one in task.model.named_parameters() if one.requires_grad]
    groups = [
        {
            "params": [one for _, one in named if (one.dim() > 1) is decayed],
            "weight_decay": decayed * RECIPE.weight_decay,
        }
        for decayed in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, betas=(RECIPE.beta1, RECIPE.beta2), eps=RECIPE.epsilon)
    norms = []
    for step in range(RECIPE.steps):
        losses = [task.loss(task.model, range(start, start + 2)) for start in range(16 * step, 16 * step + 16, 2)]
        (sum(one.total for one in losses) / sum(one.targets for one in losses)).backward()  # type: ignore[union-attr]
        norms.append(float(torch.nn.utils.clip_grad_norm_([one for _, one in named], 1.0)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(RECIPE, step, 16 * step)
        optimizer.step()
        optimizer.zero_grad()
    return {name: one.detach() for name, one in task.model.named_parameters()}, norms


@pytest.mark.parametrize("frozen", FROZEN.values(), ids=FROZEN)
def test_the_others_are_trained_as_torch_trains_them(frozen: tuple[str, ...], tmp_path: Path) -> None:
    reporter = RecordingReporter()
    result = train(single_rank(reporter), spec(tmp_path, frozen))
    wanted, norms = trained_by_torch(frozen)
    found, before = checkpoints.weights(Path(result.checkpoint)), initial()
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        if is_frozen(name, frozen):
            assert torch.equal(value, before[name]), name
        else:
            assert not torch.equal(value, before[name]), name
            assert value.allclose(wanted[name], rtol=1e-4, atol=1e-6), name
    assert reporter.curve("gradient_norm") == pytest.approx(norms, rel=1e-4)
    moments = {name.split("/", 1)[1] for name in state(result) if not name.startswith("master/")}
    assert moments == {name for name in found if not is_frozen(name, frozen)}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("frozen", FROZEN.values(), ids=FROZEN)
def test_ranks_stages_and_offloading_give_the_same_bits(
    frozen: tuple[str, ...], precision: str, workers: Workers, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"precision": precision, "steps": 3})
    wanted = train(single_rank(), spec(tmp_path / "alone", frozen, recipe=recipe))
    for name, value in checkpoints.weights(Path(wanted.checkpoint)).items():
        assert torch.equal(value, initial()[name]) is is_frozen(name, frozen), name
    ways: list[dict[str, Any]] = [
        {"ranks": 2, "zero_stage": 0}, {"ranks": 2, "zero_stage": 1}, {"ranks": 3, "zero_stage": 2},
        {"ranks": 2, "zero_stage": 3}, {"ranks": 2, "zero_stage": 3, "recompute": "full"},
        {"ranks": 2, "zero_stage": 3, "offload_optimizer": "file", "offload_parameters": "file",
         "recompute": "full", "offload_activations": "file"},
    ]  # fmt: skip
    for number, way in enumerate(ways):
        execution = Execution.model_validate(way)
        answers = workers.gang(train, spec(tmp_path / str(number), frozen, execution, recipe), ranks=execution.ranks)
        for result, _ in answers:
            assert isinstance(result, TrainingResult), result
            assert_same(state(result), state(wanted))


def test_a_kill_changes_nothing_and_other_frozen_parameters_are_another_training(tmp_path: Path) -> None:
    frozen = FROZEN["the embedding and the first block"]
    recipe = RECIPE.model_copy(update={"precision": "bfloat16"})
    wanted = train(single_rank(), spec(tmp_path / "whole", frozen, recipe=recipe))
    with pytest.raises(Exception, match="stopped after step 2"):
        train(single_rank(RecordingReporter(stop_after=2)), spec(tmp_path / "two", frozen, recipe=recipe))
    reporter = RecordingReporter()
    assert_same(state(train(single_rank(reporter), spec(tmp_path / "two", frozen, recipe=recipe))), state(wanted))
    assert reporter.notes[0] == "resumes from the checkpoint of step 2"
    reporter = RecordingReporter()
    train(single_rank(reporter), spec(tmp_path / "two", FROZEN["all blocks"], recipe=recipe))
    assert "belongs to another recipe" in reporter.notes[0]


def test_a_model_without_trained_parameters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no parameter of the model requires a gradient"):
        train(single_rank(), spec(tmp_path, ("embedding", "blocks", "norm")))


# -- by configuration


def test_patterns_of_names() -> None:
    config = shaped("opt")
    names = set(parameter_shapes(config))
    assert frozen_parameters(config, ["word_embeddings", "position_embeddings.weight"]) == {
        "word_embeddings.weight", "position_embeddings.weight",
    }  # fmt: skip
    assert frozen_parameters(config, ["*.bias"]) == {name for name in names if name.endswith(".bias")}
    assert frozen_parameters(config, ["blocks.1"]) == {name for name in names if name.startswith("blocks.1.")}
    assert frozen_parameters(config, []) == frozenset()
    with pytest.raises(StageError, match=r"freeze: 'lm_head' matches no parameter; .* the two are tied"):
        frozen_parameters(config, ["word_embeddings", "lm_head"])
    with pytest.raises(StageError, match="every parameter matches"):
        frozen_parameters(config, ["*"])


def test_a_stage_trains_the_others_alone(tmp_path: Path) -> None:
    texts = [Path(torch.__file__).parent.joinpath(name).read_text() for name in ("functional.py", "serialization.py")]
    tokens = token_set(tmp_path / "tokens", {"train": texts[:1], "validation": texts[1:]}, 300)
    fields: dict[str, Any] = {
        "tokens": "tokens", "model": shaped("llama", context_length=64), "steps": 2, "global_batch_size": 4,
        "micro_batch_size": 2, "sequence_length": 64, "freeze": ["word_embeddings", "blocks.0"],
        "learning_rate": 0.01,
    }  # fmt: skip
    stage = Pretrain.model_validate(fields)
    made, context = run_stage(stage, {"tokens": tokens}, tmp_path, draw=False)
    config = fields["model"]
    for name, value in made.state_dict().items():
        before = initial_values(config, stage.seed, name, 0, value.numel()).view(value.shape)
        assert torch.equal(value, before) is name.startswith(("word_embeddings", "blocks.0.")), name
    needed = memory_plan.predict(config, stage, stage, frozen=frozen_parameters(config, stage.freeze))
    measured = [context.last[f"memory_{part}_bytes"] for part in ("parameters", "optimizer", "gradients")]
    assert measured == [needed.parameters, needed.optimizer, needed.gradients]
    assert stage.demand().rank.memory_bytes == needed.total
    assert made.facts["frozen"] == ["word_embeddings", "blocks.0"]


# -- the memory of decoders

PARTS = {
    "the embedding": ("word_embeddings",),
    "all but the head": ("word_embeddings", "position_embeddings", "blocks"),
    "the lower half": ("word_embeddings", "position_embeddings", "blocks.0", "blocks.1"),
    "the upper half": ("blocks.2", "blocks.3", "ln_f", "lm_head"),
}
SMALL = {"vocab_size": 1999, "hidden_size": 64, "layers": 4, "heads": 4}


def frozen_names(config: DecoderConfig, parts: Sequence[str]) -> frozenset[str]:
    return frozenset(name for name in parameter_shapes(config) if is_frozen(name, parts))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_planner_lays_frozen_groups_out_as_training_does(shape: str) -> None:
    config = shaped(shape, layers=4)
    for parts in PARTS.values():
        names = frozen_names(config, parts)
        with torch.device("meta"):
            model = Decoder(config)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in names)
        stem = [model.word_embeddings, model.position_embeddings, model.word_embeddings_layernorm]
        head = [model.ln_f, model.word_embeddings if model.lm_head is None else model.lm_head]
        assert buffers.groups_of(model, list(model.blocks), stem, head) == memory_plan.groups_of(config, names)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_frozen_parameters_have_their_weights_alone(zero_stage: int, precision: str) -> None:
    """Bytes by the formula: 4 or 2 for a frozen parameter; 12 or 14 for a trained one, without its gradient."""
    recipe = RECIPE.model_copy(update={"precision": precision})
    for parts in FROZEN.values():
        model = ShardedModel(
            build(recipe, parts),
            recipe,
            Execution(ranks=4, zero_stage=zero_stage),
            Collectives(1, 4),
        )
        padded = {frozen: sum(one.layout.padded(4) for one in model.groups if one.layout.frozen is frozen)
                  for frozen in (True, False)}  # fmt: skip
        element = 4 if precision == "float32" else 2
        share = 4 if zero_stage else 1
        assert memory_usage.held(model) == {
            "parameters": element * sum(padded.values()) // (4 if zero_stage == 3 else 1),
            "master": 0 if element == 4 else 4 * padded[False] // share,
            "optimizer": 8 * padded[False] // share,
            "gradients": 0,
            "files": 0,
        }


@pytest.mark.parametrize("fields", [
    {"zero_stage": 0}, {"precision": "bfloat16", "zero_stage": 2}, {"recompute": "full"}, {"zero_stage": 3},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("shape", ["bloom", "llama"])
def test_the_peak_is_within_the_plan(shape: str, parts: tuple[str, ...], fields: dict[str, Any]) -> None:
    config = shaped(shape, **SMALL)
    names = frozen_names(config, parts)
    recipe, execution = peaks.split({"global_batch_size": 4} | fields)
    peak, gradients = peaks.measure(single_rank(), config, recipe, execution, names)
    needed = memory_plan.predict(config, recipe, execution, frozen=names)
    whole = memory_plan.predict(config, recipe, execution)
    assert gradients == needed.gradients
    assert peak <= needed.gradients + needed.transient
    assert needed.total < whole.total
