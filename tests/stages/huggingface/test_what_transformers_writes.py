"""What the config classes of `transformers` write is read, and what is written they load."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import AutoConfig, AutoModelForCausalLM, BloomConfig, LlamaConfig, OPTConfig, PreTrainedConfig

from stages.base import StageError
from stages.huggingface.families import read_config, write_config
from stages.huggingface.model_directory import CONFIG_LIMIT_BYTES, read_json
from stages.model.config import DecoderConfig
from tests.stages.huggingface.examples import imported
from tests.stages.model.models import SHAPES, byte_tokenizer, random_tokens, shaped

LLAMA: Any = LlamaConfig
BLOOM: Any = BloomConfig
OPT: Any = OPTConfig
MODEL: Any = AutoModelForCausalLM
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
token = st.integers(0, 259)
ends = token | st.lists(token, min_size=1, max_size=3)
common = {
    "vocab_size": st.integers(260, 300), "bos_token_id": st.none() | token, "eos_token_id": ends,
    "pad_token_id": st.none() | token | st.just(-1), "use_cache": st.booleans(), "pretraining_tp": st.just(1),
}  # fmt: skip
extra: st.SearchStrategy[Any] = st.sampled_from([{}, {"seq_length": 64}, {"n_inner": None}])
types = st.sampled_from([{}, {"dtype": "float16"}, {"dtype": "float32"}, {"torch_dtype": "bfloat16"}])
factor = st.sampled_from([1, 2.0, 8.5])
theta: st.SearchStrategy[Any] = st.sampled_from([{}, {"rope_theta": 10_000}, {"rope_theta": 500_000.0}])
kind = st.sampled_from(["rope_type", "type", "both"])


@st.composite
def rope(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from(["default", "linear", "llama3"]))
    names = {"both": ("rope_type", "type")}.get(chosen := draw(kind), (chosen,))
    found: dict[str, Any] = dict.fromkeys(names, name)
    if name != "default":
        found["factor"] = draw(factor)
    if name == "llama3":
        found |= {"low_freq_factor": 1, "high_freq_factor": draw(st.sampled_from([4, 4.0]))}
        found |= draw(st.sampled_from([{}, {"original_max_position_embeddings": 32}]))
    rest: dict[str, Any] = draw(theta)
    return found | rest


@st.composite
def llamas(draw: st.DrawFn) -> Any:
    heads = draw(st.sampled_from([1, 2, 4]))
    rotary = draw(st.sampled_from(["rope_parameters", "rope_scaling", ""]))
    return LLAMA(
        **{name: draw(values) for name, values in common.items()},
        **draw(types),
        **({rotary: draw(rope())} if rotary else {}),
        hidden_size=16,
        intermediate_size=draw(st.sampled_from([24, 64])),
        num_hidden_layers=draw(st.integers(1, 2)),
        num_attention_heads=heads,
        num_key_value_heads=draw(st.sampled_from([None, 1, heads])),
        head_dim=draw(st.sampled_from([None, 4, 6])),
        max_position_embeddings=draw(st.sampled_from([64, 128])),
        hidden_act=draw(st.sampled_from(["silu", "swish"])),
        rms_norm_eps=draw(st.sampled_from([1e-6, 1e-5])),
        initializer_range=draw(st.sampled_from([0.0, 0.02, 1.0])),
        tie_word_embeddings=draw(st.booleans()),
    )


@st.composite
def blooms(draw: st.DrawFn) -> Any:
    return BLOOM(
        **{name: draw(values) for name, values in common.items()},
        **draw(types),
        **draw(st.sampled_from([{"hidden_size": 16}, {"n_embed": 16}])),
        **draw(extra),
        n_layer=draw(st.integers(1, 2)),
        n_head=draw(st.sampled_from([1, 2, 4])),
        initializer_range=draw(st.sampled_from([0.0, 0.02])),
        tie_word_embeddings=draw(st.booleans()),
    )


@st.composite
def opts(draw: st.DrawFn) -> Any:
    values = common | {"pad_token_id": st.none() | token}
    return OPT(
        **{name: draw(one) for name, one in values.items()},
        **draw(types),
        hidden_size=16,
        num_hidden_layers=draw(st.integers(1, 2)),
        num_attention_heads=draw(st.sampled_from([1, 2, 4])),
        ffn_dim=draw(st.sampled_from([24, 64])),
        max_position_embeddings=64,
        init_std=draw(st.sampled_from([0.0, 0.02])),
        tie_word_embeddings=draw(st.booleans()),
    )


FAMILIES = {"bloom": blooms(), "llama": llamas(), "opt": opts()}


def rotary(config: PreTrainedConfig) -> dict[str, Any] | None:
    found = getattr(config, "rope_parameters", None)
    if not found:
        return None
    return {name: value for name, value in found.items() if name != "type"}


@pytest.mark.parametrize("family", FAMILIES)
@SLOW
@given(st.data())
def test_every_config_that_it_saves_is_read_and_written_back(family: str, data: st.DataObject) -> None:
    theirs = data.draw(FAMILIES[family])
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        values = read_json(Path(folder) / "config.json", CONFIG_LIMIT_BYTES)
    _, config = read_config(values, "config.json")
    ends = theirs.eos_token_id if isinstance(theirs.eos_token_id, list) else [theirs.eos_token_id]
    assert config.end_tokens == tuple(dict.fromkeys(ends))
    _, written = write_config(config)
    again = type(theirs).from_dict(json.loads(json.dumps(written)))
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "bos_token_id"):
        assert getattr(again, name) == getattr(theirs, name)
    assert again.pad_token_id == (None if theirs.pad_token_id == -1 else theirs.pad_token_id)
    assert again.tie_word_embeddings == theirs.tie_word_embeddings
    assert rotary(again) == rotary(theirs)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_every_model_that_it_saves_computes_the_same_logits(
    family: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp(family)
    torch.manual_seed(0)
    theirs = MODEL.from_config(data.draw(FAMILIES[family]), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    theirs.generation_config.pad_token_id = None  # its own check refuses -1
    theirs.save_pretrained(path / "theirs")
    byte_tokenizer(path / "theirs" / "tokenizer.json")
    tokens = random_tokens(2, 40, 260)
    with torch.inference_mode():
        ours = imported(path / "ours", path / "theirs").load()(tokens)
        torch.testing.assert_close(ours, theirs(tokens).logits, atol=1e-4, rtol=1e-4)


@st.composite
def decoders(draw: st.DrawFn) -> DecoderConfig:
    """Decoders of the three architectures, also with values that `transformers` refuses. Raises ValidationError."""
    shape = draw(st.sampled_from(["bloom", "opt", "llama"]))
    values: dict[str, Any] = SHAPES[shape] | {
        "vocab_size": draw(st.sampled_from([3, 4, 300])),
        "hidden_size": draw(st.sampled_from([48, 50])),
        "layers": 1,
        "heads": draw(st.sampled_from([2, 6])),
        "initial_deviation": draw(st.sampled_from([0.02, 1.0, 1.5])),
        "bos_token_id": draw(st.sampled_from([None, 1, 299])),
        "eos_token_id": draw(st.sampled_from([2, 400])),
        "other_end_token_ids": draw(st.sampled_from([(), (0, 1), (300,)])),
        "pad_token_id": draw(st.sampled_from([None, 3, 300])),
        "tied_head": draw(st.booleans()),
    }
    if shape == "llama":
        values["attention_head_size"] = draw(st.sampled_from([None, 8, 10]))
    return DecoderConfig(**values)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_what_is_written_is_loaded_and_the_rest_is_refused(data: st.DataObject) -> None:
    try:
        config = data.draw(decoders())
    except ValidationError:  # not a decoder at all
        reject()
    try:
        _, values = write_config(config)
    except StageError as refused:
        text = str(refused)
        assert "hidden_size" in text or "initial_deviation" in text or "token_id" in text
        return
    theirs = AutoConfig.for_model(**json.loads(json.dumps(values)))
    with torch.device("meta"):
        MODEL.from_config(theirs)


def test_a_model_that_transformers_refuses_is_not_exported() -> None:
    with pytest.raises(StageError, match=r"hidden_size 50 is not a multiple of heads 6"):
        write_config(shaped("llama", hidden_size=50, attention_head_size=10))
    with pytest.raises(StageError, match=r"initial_deviation 1.5 is above 1"):
        write_config(shaped("llama", initial_deviation=1.5))
    with pytest.raises(StageError, match=r"pad_token_id 300 .* vocab_size is 300"):
        write_config(shaped("bloom", pad_token_id=300))
