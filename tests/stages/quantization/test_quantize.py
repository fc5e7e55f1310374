"""The quantization stage on a trained model: what it leaves, what it measures, and the gate that fails it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.tokens import TokenDataset
from stages.base import StageError
from stages.quantization import quantize_state as module
from stages.quantization.quantize import Quantize
from tests.support import run_stage

FIELDS = {"model": "model", "tokens": "tokens", "sequence_length": 64, "held_out_samples": 16}


def test_leaves_an_int8_checkpoint_and_says_what_it_cost(
    dense: Checkpoint, tokens: TokenDataset, tmp_path: Path
) -> None:
    stage = Quantize.model_validate(FIELDS)
    saved, context = run_stage(stage, {"model": dense, "tokens": tokens}, tmp_path)
    assert saved.config.quantization == "int8"
    assert saved.config.parameters == dense.config.parameters
    last = context.last
    assert last["loss_increase"] == pytest.approx(last["loss_after"] - last["loss_before"])
    assert last["loss_increase"] < 0.02
    assert last["perplexity_increase"] == pytest.approx(last["perplexity_after"] - last["perplexity_before"])
    assert last["bytes_after"] == (saved.path / "model.safetensors").stat().st_size < 0.36 * last["bytes_before"]
    assert saved.facts["quantized_from"] == dense.facts
    assert saved.facts["held_out_loss"] == last["loss_after"]


def test_the_gate_fails_the_step_past_the_limit(
    dense: Checkpoint, tokens: TokenDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = module.quantize_rows

    def coarse(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes, scale = honest(weight)
        return (codes / 64).round().mul(64).clamp(-127, 127).to(torch.int8), scale

    monkeypatch.setattr(module, "quantize_rows", coarse)
    stage = Quantize.model_validate(FIELDS)
    with pytest.raises(StageError, match=r"loss rises by .* nats per token.*max_loss_increase allows 0\.02"):
        run_stage(stage, {"model": dense, "tokens": tokens}, tmp_path)
    assert not list((tmp_path / "out").iterdir())


def test_a_loss_beyond_all_bounds_fails_by_the_gate_too(
    dense: Checkpoint, tokens: TokenDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter((4.0, 1000.0))  # e to the second is no float
    monkeypatch.setattr("stages.artifacts.held_out.held_out_loss", lambda *_: next(losses))
    with pytest.raises(StageError, match=r"loss rises by 996\.0000 nats per token"):
        run_stage(Quantize.model_validate(FIELDS), {"model": dense, "tokens": tokens}, tmp_path)


def test_a_split_without_a_sample_is_refused(dense: Checkpoint, tokens: TokenDataset, tmp_path: Path) -> None:
    fields: dict[str, Any] = FIELDS | {"sequence_length": 10**6}
    with pytest.raises(StageError, match="fewer than one sample of 1000000"):
        run_stage(Quantize.model_validate(fields), {"model": dense, "tokens": tokens}, tmp_path)
