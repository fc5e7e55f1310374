"""The conversion stage on a trained model: unchanged logits, parameter counts, and the records of further training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.tokens import TokenDataset
from stages.base import StageError
from stages.experts import moe, upcycle
from stages.experts.expert_load import entropy, violation
from stages.experts.moe import ConvertToExperts
from stages.model.parameters import parameter_count
from tests.support import RecordingContext, run_stage


def converting(**changes: Any) -> ConvertToExperts:
    fields: dict[str, Any] = {
        "model": "model", "tokens": "tokens", "steps": 12, "global_batch_size": 8, "micro_batch_size": 8,
        "sequence_length": 64, "learning_rate": 2e-3, "validation_every": 6, "validation_samples": 8,
    }  # fmt: skip
    return ConvertToExperts.model_validate(fields | changes)


def run(
    stage: ConvertToExperts, dense: Checkpoint, tokens: TokenDataset, path: Path
) -> tuple[Checkpoint, RecordingContext]:
    return run_stage(stage, {"model": dense, "tokens": tokens}, path)


def test_converts_trains_on_and_records_the_load(dense: Checkpoint, tokens: TokenDataset, tmp_path: Path) -> None:
    trained, context = run(converting(experts=4, top_k=2), dense, tokens, tmp_path)
    assert trained.config.experts is not None
    assert trained.config.experts.per_layer == (4, 0, 4)
    assert parameter_count(trained.config) == context.last["parameters"] > parameter_count(dense.config)
    assert context.last["conversion_logit_difference"] < 1e-5
    facts = trained.facts
    # Training starts at the dense model's loss, and lowers it.
    assert facts["validation_loss_before"] == pytest.approx(dense.facts["validation_loss"], abs=1e-5)
    assert facts["validation_loss"] < facts["validation_loss_before"]
    assert facts["converted_from"] == dense.facts
    before, after = (
        next(v for s, v in context.recorded if "layer_2_load_entropy" in v and s == step) for step in (0, 12)
    )
    for values in (before, after):
        assert 0 < values["layer_0_load_entropy"] <= 1
        assert values["layer_2_load_violation"] >= 0
        assert values["layer_2_dead_experts"] in range(4)
    assert {"load_balancing_loss", "validation_load_entropy", "validation_load_violation"} <= context.last.keys()
    assert context.figures == ["loss", "memory", "expert_load"]
    # The experts have parted.
    weight = trained.state_dict()["blocks.2.mlp.experts.dense_h_to_4h.weight"]
    assert not torch.equal(weight[0], weight[1])


@pytest.mark.parametrize(
    "changes",
    [{"residual": True}, {"granularity": 4, "experts": [2, 3]}, {"every": 1, "experts": [1, 2, 4], "residual": True}],
    ids=str,
)
def test_other_shapes_keep_the_logits_too(
    dense: Checkpoint, tokens: TokenDataset, tmp_path: Path, changes: dict[str, Any]
) -> None:
    trained, context = run(converting(steps=1, **changes), dense, tokens, tmp_path)
    assert context.last["conversion_logit_difference"] < 1e-5
    wanted = {"4": (8, 0, 12), "1": (1, 2, 4) if "every" in changes else (4, 0, 4)}[str(changes.get("granularity", 1))]
    assert trained.config.experts is not None
    assert trained.config.experts.per_layer == wanted


def test_a_conversion_that_changes_the_logits_fails(
    dense: Checkpoint, tokens: TokenDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = upcycle.upcycle

    def wrong(*arguments: Any) -> dict[str, torch.Tensor]:
        state = honest(*arguments)
        state["blocks.2.mlp.experts.dense_4h_to_h.bias"][1, 0] += 1e-2
        return state

    monkeypatch.setattr(upcycle, "upcycle", wrong)
    with pytest.raises(StageError, match=r"logits of the converted model differ .*tolerance is 1e-05 of it"):
        run(converting(), dense, tokens, tmp_path)
    assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize(("scale", "error", "refused"), [
    (300.0, 0.0, False), (300.0, 1e-2, True), (1e-3, 0.0, False), (1e-3, 1e-2, True), (0.0, 0.0, False),
])  # fmt: skip
def test_parity_is_relative_to_the_largest_logit(
    dense: Checkpoint, tokens: TokenDataset, tmp_path: Path, scale: float, error: float, refused: bool
) -> None:
    """The head's normalisation is multiplied by `scale`, and so are the logits."""
    state = dense.state_dict()
    scaled = {name: value * scale if name.startswith("ln_f") else value for name, value in state.items()}
    model = Checkpoint.save(tmp_path / "scaled", scaled, dense.config, dense.tokenizer_path, dense.facts)
    stage = converting(experts=2, granularity=2).bind({"model": model, "tokens": tokens})
    config = stage._converted(dense.config)
    converted = upcycle.upcycle(scaled, dense.config, config, 1)
    converted["blocks.2.mlp.experts.dense_4h_to_h.bias"][1, 0] += error
    other = Checkpoint.save(tmp_path / "converted", converted, config, dense.tokenizer_path, {})
    if refused:
        with pytest.raises(StageError, match=r"the largest logit is .*; the tolerance is 1e-05 of it"):
            stage._check_parity(model.load(), other.load())
    else:
        difference, largest = stage._check_parity(model.load(), other.load())
        assert difference <= 1e-5 * largest


def test_the_balancing_loss_is_followed_but_not_reported(
    dense: Checkpoint, tokens: TokenDataset, tmp_path: Path
) -> None:
    stage = converting(experts=4, steps=1)
    run(stage, dense, tokens, tmp_path)
    arguments = {"converted": tmp_path / "scratch" / "converted", "tokens": tokens.path}
    losses = {}
    for weight in (0.0, 10.0):
        task = moe.expert_training_task(stage, **arguments, load_balancing=weight, separate_documents=True)
        task.model.to_empty(device="cpu")
        for name, parameter in task.model.named_parameters():
            parameter.data.copy_(task.initial(name, 0, parameter.numel()).view(parameter.shape))
        losses[weight] = task.loss(task.model, range(8))
    plain, balanced = losses[0.0], losses[10.0]
    assert balanced.reported is not None
    assert plain.reported is not None
    assert balanced.reported.item() == plain.reported.item() == plain.total.item()
    assert balanced.metrics is not None
    added = (balanced.total - plain.total).item()
    assert added == pytest.approx(10 * balanced.metrics[0].item(), rel=1e-4)
    balanced.total.backward()


def test_impossible_wishes_are_refused(dense: Checkpoint, tokens: TokenDataset, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="experts lists 3 layers, but every=2 converts 2 of 3: list"):
        run(converting(experts=[2, 2, 2]), dense, tokens, tmp_path)
    with pytest.raises(StageError, match="top_k is 3, but a layer has only 2 experts"):
        run(converting(experts=2, top_k=3), dense, tokens, tmp_path)
    with pytest.raises(ValidationError, match="experts"):
        converting(experts=0)


def test_measures_of_load() -> None:
    even, one = torch.tensor([5, 5, 5, 5]), torch.tensor([20, 0, 0, 0])
    assert (entropy(even), violation(even)) == pytest.approx((1, 0))
    assert (entropy(one), violation(one)) == pytest.approx((0, 3))
    assert entropy(torch.tensor([7])) == 1
