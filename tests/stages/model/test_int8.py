from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.artifacts.checkpoint import Checkpoint
from stages.base import ArtifactError, StageError
from stages.model.cache import KeyValueCache
from stages.model.config import DecoderConfig, ExpertsConfig
from stages.model.decoder import Decoder
from stages.model.int8 import linear_int8, quantize_rows
from stages.quantization.state_dict import quantize_state_dict
from tests.stages.model.models import byte_tokenizer, random_tokens, shaped, small_config, small_model

KINDS = {
    "dense": small_config(),
    "experts": small_config(experts=ExpertsConfig(per_layer=(0, 4), top_k=2)),
    "residual": small_config(experts=ExpertsConfig(per_layer=(3, 4), residual=True, feed_forward_size=32)),
    "opt": shaped("opt"),
    "llama": shaped("llama"),
    "palm experts": shaped("palm", experts=ExpertsConfig(per_layer=(0, 4), top_k=2)),
}


def quantized(model: Decoder) -> Decoder:
    state, config = quantize_state_dict(model.state_dict(), model.config, "int8")
    other = Decoder(config).eval()
    other.load_state_dict(state)
    return other


def restored(model: Decoder) -> Decoder:
    """A floating point model of the weights that the quantized `model` stands for."""
    config = DecoderConfig.model_validate(model.config.model_dump() | {"quantization": None})
    state = dict(model.state_dict())
    for name in [name for name in state if name.endswith("scale")]:
        weight = name.removesuffix("scale") + "weight"
        state[weight] = state[weight] * state.pop(name)[..., None]
    other = Decoder(config).eval()
    other.load_state_dict(state)
    return other


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 10_000), st.floats(1e-6, 1e4))
@settings(max_examples=50)
def test_rows_are_within_half_a_scale(rows: int, columns: int, seed: int, size: float) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * size
    weight[0] = 0
    codes, scale = quantize_rows(weight)
    assert codes.dtype == torch.int8
    assert codes.abs().max() <= 127
    error = (codes * scale[:, None] - weight).abs()
    assert (error <= scale[:, None] * 0.5001).all()
    assert torch.equal(codes.abs().amax(-1)[1:], torch.full((rows - 1,), 127, dtype=torch.int8))
    again, scale_again = quantize_rows(codes * scale[:, None])
    assert torch.equal(again, codes)
    torch.testing.assert_close(scale_again, scale)


@given(st.integers(1, 33), st.integers(1, 70), st.integers(1, 70), st.integers(0, 10_000))
@settings(max_examples=40)
def test_product_equals_the_plain_reference_and_is_the_same_in_any_batch(m: int, n: int, k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, bias = torch.randn(m, k, generator=generator), torch.randn(n, generator=generator)
    x[0] = 0
    codes, scale = quantize_rows(torch.randn(n, k, generator=generator))
    found = linear_int8(x, codes, scale, bias)
    x_codes, x_scale = quantize_rows(x)
    exact = (x_codes.double() @ codes.double().T) * x_scale[:, None].double() * scale.double() + bias
    torch.testing.assert_close(found, exact.float(), atol=1e-5, rtol=1e-5)
    for row in range(m):
        assert torch.equal(linear_int8(x[row], codes, scale, bias), found[row])
    # One row whose stride is 0, as broadcasting leaves it.
    assert torch.equal(linear_int8(x[:1].as_strided((1, k), (0, 1)), codes, scale, bias), found[:1])
    assert torch.equal(linear_int8(x, codes, scale), linear_int8(x, codes, scale, torch.zeros(n)))


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_quantized_models_are_near_the_original(kind: str) -> None:
    model = small_model(KINDS[kind])
    ours, tokens = quantized(model), random_tokens(3, 50)
    exact, stood_for, found = model(tokens), restored(ours)(tokens), ours(tokens)
    assert (found - stood_for).norm() / stood_for.norm() < 0.04
    assert (found - exact).norm() / exact.norm() < 0.05
    cache = KeyValueCache(model.config, 3)
    parts = torch.cat([ours(part, cache=cache) for part in tokens.split([20, 1, 29], 1)], 1)
    assert (parts - found).norm() / found.norm() < 0.02


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_checkpoint_holds_bytes_for_matrices(kind: str, tmp_path: Path) -> None:
    model = small_model(KINDS[kind])
    tokenizer = byte_tokenizer(tmp_path / "tokenizer.json")
    dense = Checkpoint.save(tmp_path / "dense", model, model.config, tokenizer, {})
    state, config = quantize_state_dict(dense.state_dict(), dense.config, "int8")
    saved = Checkpoint.save(tmp_path / "int8", state, config, tokenizer, {})
    saved.check()
    assert saved.describe()["weights"] == "int8"
    kept = {name for name, value in saved.state_dict().items() if value.dtype != torch.int8 and value.dim() > 1}
    small = ("mlp.gate.", "coefficient", "position_embeddings")
    assert all(name.endswith(("bias", "scale")) or any(part in name for part in small) for name in kept)
    assert (saved.path / "model.safetensors").stat().st_size < 0.36 * (dense.path / "model.safetensors").stat().st_size
    tokens = random_tokens(2, 30)
    assert torch.equal(saved.load()(tokens), quantized(model)(tokens))
    half = saved.load(dtype=torch.bfloat16)
    assert half.word_embeddings.scale.dtype == torch.float32
    wanted = saved.load()(tokens)
    assert (half(tokens).float() - wanted).norm() / wanted.norm() < 0.1
    with pytest.raises(StageError, match="quantized already"):
        quantize_state_dict(state, config, "int8")


def test_a_lost_scale_is_refused(tmp_path: Path) -> None:
    model = small_model()
    state, config = quantize_state_dict(model.state_dict(), model.config, "int8")
    del state["blocks.0.mlp.dense_h_to_4h.scale"]
    with pytest.raises(ArtifactError, match=r"missing: blocks\.0\.mlp\.dense_h_to_4h\.scale"):
        Checkpoint.save(tmp_path, state, config, byte_tokenizer(tmp_path / "t.json"), {})
