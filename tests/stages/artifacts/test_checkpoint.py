from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.artifacts.checkpoint import Checkpoint
from stages.base import ArtifactError, StageError
from stages.model.decoder import Decoder
from stages.model.parameters import parameter_count
from stages.training.initial_weights import initial_weights
from tests.stages.model.models import byte_tokenizer, random_tokens, small_config, small_model


@pytest.fixture
def model() -> Decoder:
    return small_model()


@pytest.fixture
def checkpoint(tmp_path: Path, model: Decoder) -> Checkpoint:
    tokenizer = byte_tokenizer(tmp_path / "tokenizer.json")
    return Checkpoint.save(tmp_path / "out", model, model.config, tokenizer, {"tokens_seen": 7})


@torch.inference_mode()
def test_round_trip(checkpoint: Checkpoint, model: Decoder) -> None:
    checkpoint.check()
    loaded = checkpoint.load()
    assert loaded.config == model.config
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert torch.equal(loaded(random_tokens(1, 9)), model(random_tokens(1, 9)))
    assert checkpoint.load(dtype=torch.bfloat16).ln_f.weight.dtype == torch.bfloat16
    assert checkpoint.facts == {"tokens_seen": 7}
    described = checkpoint.describe()
    assert described["parameters"] == parameter_count(model.config)
    assert (described["layers"], described["hidden size"]) == (model.config.layers, model.config.hidden_size)
    assert checkpoint.tokenizer().decode(checkpoint.tokenizer().encode("héllo").ids) == "héllo"


def test_loaded_model_can_be_trained_on(checkpoint: Checkpoint) -> None:
    loaded = checkpoint.load().train()
    loaded(random_tokens(1, 9)).logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def alter(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: (p / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda p: (p / "model.safetensors").write_bytes(b""), "not a whole safetensors file"),
        (lambda p: (p / "model.safetensors").write_bytes(b"\xff" * 4000), "not a whole safetensors file"),
        (lambda p: (p / "config.json").unlink(), "config.json cannot be read"),
        (lambda p: (p / "config.json").write_text("{"), "config.json is not a decoder's config"),
        (lambda p: (p / "config.json").write_bytes(b"\xff\xfe"), "is not a decoder's config"),
        (lambda p: (p / "config.json").write_text(" " * 2_000_000), "larger than"),
        (lambda p: alter(p / "config.json", layers=-1), "layers"),
        (lambda p: alter(p / "config.json", layers=3), "missing: blocks.2."),
        (lambda p: alter(p / "config.json", layers=1), "unknown: blocks.1."),
        (lambda p: alter(p / "config.json", vocab_size=301), r"shape \[300, 48\], expected \[301, 48\]"),
        (lambda p: (p / "tokenizer.json").unlink(), "tokenizer.json cannot be read"),
        (lambda p: (p / "tokenizer.json").write_text("[1]"), "is not a tokenizer"),
        (lambda p: (p / "facts.json").write_text("[" * 100_000), "facts.json is not JSON"),
        (lambda p: (p / "facts.json").write_text("[]"), "JSON object"),
    ],
)
def test_damage_is_refused_with_one_clear_error(checkpoint: Checkpoint, damage: object, said: str) -> None:
    damage(checkpoint.path)  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=said):
        checkpoint.check()


@given(st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_truncated_or_garbled_weights_never_load_silently(checkpoint: Checkpoint, data: st.DataObject) -> None:
    path = checkpoint.path / "model.safetensors"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        with pytest.raises(ArtifactError, match="whole safetensors"):
            checkpoint.load()
        header = int.from_bytes(whole[:8], "little")
        at = data.draw(st.integers(0, header + 7))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with pytest.raises(ArtifactError):
            checkpoint.load()
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(checkpoint: Checkpoint, model: Decoder, bad: float) -> None:
    with torch.no_grad():
        model.get_parameter("blocks.1.mlp.dense_4h_to_h.weight")[3, 4] = bad
    saved = Checkpoint.save(checkpoint.path, model, model.config, checkpoint.path.parent / "tokenizer.json", {})
    said = r"model\.safetensors holds values that are not finite, in blocks\.1\.mlp\.dense_4h_to_h\.weight"
    for use in (saved.check, saved.load, saved.state_dict, lambda: dict(saved.open_tensors())):
        with pytest.raises(ArtifactError, match=said):
            use()
    read = initial_weights(saved)
    assert read("ln_f.bias", 0, 5).isfinite().all()
    with pytest.raises(StageError, match=said):
        read("blocks.1.mlp.dense_4h_to_h.weight", 0, 4 * 48 * 4)


def test_saving_what_does_not_fit_the_config_is_refused(checkpoint: Checkpoint, model: Decoder) -> None:
    tokenizer = checkpoint.path.parent / "tokenizer.json"
    state = {name: value for name, value in model.state_dict().items() if name != "ln_f.bias"}
    with pytest.raises(ArtifactError, match=r"missing: ln_f\.bias"):
        Checkpoint.save(checkpoint.path, state, model.config, tokenizer, {})
    small = small_model(small_config(vocab_size=200))
    saved = Checkpoint.save(checkpoint.path, small, small.config, tokenizer, {})
    with pytest.raises(ArtifactError, match="260 tokens, the embedding only 200 rows"):
        saved.check()
