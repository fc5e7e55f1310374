"""The quantize stage on a trained model: its checkpoint, its measurements, and the limit on the loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.tokens import TokenDataset
from stages.base import StageError
from stages.model.config import DecoderConfig
from stages.model.parameters import parameter_count
from stages.quantization.quantize import Quantize
from tests.support import RecordingContext, run_stage

FIELDS = {"model": "model", "tokens": "tokens", "sequence_length": 64, "held_out_samples": 16}


def test_produces_an_int8_checkpoint_and_reports_its_cost(
    dense: Checkpoint, tokens: TokenDataset, tmp_path: Path
) -> None:
    stage = Quantize.model_validate(FIELDS)
    saved, context = run_stage(stage, {"model": dense, "tokens": tokens}, tmp_path)
    assert saved.config.quantization == "int8"
    assert parameter_count(saved.config) == parameter_count(dense.config)
    last = context.last
    assert last["loss_increase"] == pytest.approx(last["loss_after"] - last["loss_before"])
    assert last["loss_increase"] < 0.02
    assert last["perplexity_increase"] == pytest.approx(last["perplexity_after"] - last["perplexity_before"])
    assert last["bytes_after"] == (saved.path / "model.safetensors").stat().st_size < 0.36 * last["bytes_before"]
    assert saved.facts["quantized_from"] == dense.facts
    assert saved.facts["held_out_loss"] == last["loss_after"]


def hostile_to_int8(dense: Checkpoint, size: float, path: Path) -> Checkpoint:
    """The model `dense` with three columns in its head that cancel out exactly in floating point, but not in int8.

    The three hidden numbers that they multiply are always 1, and their values are b, -b/2 and -b/2, where b is up to
    `size` and differs from token to token. Their codes are 127, -64 and -64, which leaves an error of b / 127.
    """
    config = DecoderConfig.model_validate(dense.config.model_dump() | {"tied_head": False})
    state = dense.state_dict()
    state["ln_f.weight"][:3], state["ln_f.bias"][:3] = 0, 1
    head = state["word_embeddings.weight"].clone()
    outliers = size * torch.linspace(0.5, 1, len(head))
    head[:, 0], head[:, 1], head[:, 2] = outliers, -outliers / 2, -outliers / 2
    state["lm_head.weight"] = head
    return Checkpoint.save(path, state, config, dense.tokenizer_path, dense.facts)


@pytest.mark.parametrize(("size", "finite"), [(2.0**8, True), (2.0**20, False)])
def test_a_loss_above_the_limit_fails_the_step(
    dense: Checkpoint, tokens: TokenDataset, tmp_path: Path, size: float, finite: bool
) -> None:
    """Including a perplexity that is too large for a float."""
    model = hostile_to_int8(dense, size, tmp_path / "hostile")
    context = RecordingContext(tmp_path / "out", tmp_path / "scratch")
    stage = Quantize.model_validate(FIELDS).bind({"model": model, "tokens": tokens})
    for directory in (context.out, context.scratch):
        directory.mkdir()
    with pytest.raises(StageError, match=r"raises the held-out loss by .* nats per token.*allows 0\.02"):
        stage.run(context)
    assert not list(context.out.iterdir())
    last = context.last
    assert last["loss_before"] < math.log(dense.config.vocab_size)
    assert last["loss_increase"] > 0.02
    assert math.isfinite(last["perplexity_before"])
    assert math.isfinite(last["perplexity_after"]) == finite


def test_a_model_without_a_finite_loss_is_refused(dense: Checkpoint, tokens: TokenDataset, tmp_path: Path) -> None:
    stage, state = Quantize.model_validate(FIELDS), dense.state_dict()
    state["ln_f.bias"][:] = 3e38
    state["word_embeddings.weight"][5:] = 10
    overflowing = Checkpoint.save(tmp_path / "overflowing", state, dense.config, dense.tokenizer_path, {})
    with pytest.raises(StageError, match=r"loss of held-out text is (nan|inf) before it is quantized"):
        run_stage(stage, {"model": overflowing, "tokens": tokens}, tmp_path)
    state["ln_f.bias"][:] = math.nan
    broken = Checkpoint.save(tmp_path / "broken", state, dense.config, dense.tokenizer_path, {})
    with pytest.raises(StageError, match=r"holds values that are not finite, in ln_f\.bias"):
        run_stage(stage, {"model": broken, "tokens": tokens}, tmp_path)


def test_a_higher_limit_lets_the_same_model_pass(dense: Checkpoint, tokens: TokenDataset, tmp_path: Path) -> None:
    model = hostile_to_int8(dense, 2.0**8, tmp_path / "hostile")
    stage = Quantize.model_validate(FIELDS | {"max_loss_increase": 1e6})
    saved, context = run_stage(stage, {"model": model, "tokens": tokens}, tmp_path)
    assert saved.facts["held_out_loss"] == context.last["loss_after"] > context.last["loss_before"] + 0.02


def test_a_split_without_a_sample_is_refused(dense: Checkpoint, tokens: TokenDataset, tmp_path: Path) -> None:
    fields: dict[str, Any] = FIELDS | {"sequence_length": 10**6}
    with pytest.raises(StageError, match="fewer than one sample of 1000000"):
        run_stage(Quantize.model_validate(fields), {"model": dense, "tokens": tokens}, tmp_path)
