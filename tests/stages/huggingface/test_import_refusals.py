"""Models that an import refuses: damaged, incomplete, dangerous or unsupported ones."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from stages.base import ArtifactError, StageError
from stages.huggingface.families import FAMILIES as TABLE
from stages.huggingface.families import read_config, write_config
from stages.huggingface.huggingface_model import HuggingFaceModel
from stages.huggingface.import_model import HuggingFaceDirectory, ImportModel
from tests.stages.huggingface.examples import add_tensors, alter, checkpoint, exported, imported
from tests.stages.model.models import FAMILIES, shaped


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def small_vocabulary(path: Path) -> None:
    alter(path / "config.json", vocab_size=100)
    add_tensors(path, {"transformer.word_embeddings.weight": torch.zeros(100, 48)})


def add_far_token(path: Path) -> None:
    small_vocabulary(path)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.add_tokens(["a new one"])
    tokenizer.save(str(path / "tokenizer.json"))


def name_no_end(path: Path) -> None:
    for name in ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"):
        alter(path / name, eos_token_id=None, eos_token=None)


H, LAST = "transformer.h.0.", "transformer.ln_f.bias"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "one too many": (lambda p: add_tensors(p, {"stray": torch.zeros(3)}), r"unused \['stray'\], not written \[\]"),
    "one too few": (lambda p: add_tensors(p, {}, (f"{H}mlp.dense_h_to_4h.bias",)), "has no transformer.h.0.mlp"),
    "shape": (lambda p: add_tensors(p, {LAST: torch.zeros(47)}), r"\[47\], but the config requires \[48\]"),
    "integers": (lambda p: add_tensors(p, {LAST: torch.zeros(48).char()}), "is torch.int8; expected"),
    "type": (lambda p: add_tensors(p, {LAST: torch.zeros(48).double()}), "has type F64, expected one of"),
    "NaN": (lambda p: add_tensors(p, {LAST: torch.full((48,), torch.nan)}), "are not finite"),
    "truncated": (lambda p: cut(p / "model.safetensors"), "not a whole safetensors file"),
    "header": (
        lambda p: (p / "model.safetensors").write_bytes(b"\xff\xff\xff\xff\0\0\0\0{}"),
        "header would have 4294967295 bytes",
    ),
    "pickled": (
        lambda p: (p / "model.safetensors").rename(p / "pytorch_model.bin"),
        "only in pickled files, which can run any code",
    ),
    "nothing": (lambda p: (p / "model.safetensors").unlink(), "has neither model.safetensors nor"),
    "no tokenizer": (lambda p: (p / "tokenizer.json").unlink(), "tokenizer.json cannot be read"),
    "garbage tokenizer": (lambda p: (p / "tokenizer.json").write_text("{}"), "is not a tokenizer"),
    "small vocabulary": (
        small_vocabulary,
        "the tokenizer has 260 tokens, the embedding only 100 rows",
    ),
    "another tokenizer's end": (
        lambda p: alter(p / "tokenizer_config.json", eos_token="<|end|>"),
        "eos_token is '<|end|>', which tokenizer.json does not have",
    ),
    "a token that is a number": (lambda p: alter(p / "tokenizer_config.json", bos_token=7), "bos_token is 7; expected"),
    "other added tokens": (
        lambda p: alter(p / "tokenizer_config.json", added_tokens_decoder={"2": {"content": "<|end|>"}}),
        "token 2 is '<|end|>' in added_tokens_decoder, but '</s>' in tokenizer.json",
    ),
    "templates without a default": (
        lambda p: alter(p / "tokenizer_config.json", chat_template=[{"name": "tool", "template": "x"}]),
        "several templates, but none is named default",
    ),
    "no map of tokens": (lambda p: (p / "special_tokens_map.json").write_text("["), "special_tokens_map.json is not J"),
    "more layers": (lambda p: alter(p / "config.json", n_layer=3), "has no transformer.h.2.input_layernorm.weight"),
    "fewer layers": (lambda p: alter(p / "config.json", n_layer=1), "unused .*transformer.h.1"),
    "other heads": (lambda p: alter(p / "config.json", n_head=7), "48 is not a multiple of heads 7"),
    "endless": (lambda p: alter(p / "config.json", n_layer=10**9), "n_layer is 1000000000: .*less than or equal"),
    "a key twice": (
        lambda p: (p / "config.json").write_text('{"a": {"b": 1, "c": 2, "b": 1}}'),
        "config.json has b twice",
    ),
    "a key twice for the tokenizer": (
        lambda p: (p / "tokenizer_config.json").write_text('{"eos_token": "</s>", "eos_token": "<s>"}'),
        "tokenizer_config.json has eos_token twice",
    ),
    "no end": (
        name_no_end,
        "config.json: eos_token_id names no token: set it",
    ),
    "end beyond the vocabulary": (
        lambda p: alter(p / "config.json", eos_token_id=9999),
        "config.json: eos_token_id is 9999, but the model has only 300 tokens",
    ),
    "one of several ends": (
        lambda p: alter(p / "config.json", eos_token_id=[2, 300]),
        "config.json: eos_token_id is 300, but the model has only 300 tokens",
    ),
    "an end that is no token": (
        lambda p: alter(p / "config.json", eos_token_id=[2, -1]),
        "config.json: eos_token_id.1 is -1: ",
    ),
    "a name of a token as an end": (
        lambda p: alter(p / "config.json", eos_token_id="</s>"),
        "config.json: eos_token_id.0 is '</s>': ",
    ),
    "two names of the heads": (
        lambda p: alter(p / "config.json", num_attention_heads=3),
        "n_head is 6, but num_attention_heads is 3, although both are names of one size",
    ),
    "end that the tokenizer lacks": (
        lambda p: alter(p / "config.json", eos_token_id=260),
        "config.json: eos_token_id is 260, which tokenizer.json does not have: its last token is 259",
    ),
    "beginning beyond the vocabulary": (
        lambda p: alter(p / "config.json", bos_token_id=300),
        "config.json: bos_token_id is 300, but the model has only 300 tokens",
    ),
    "padding beyond the vocabulary": (
        lambda p: alter(p / "config.json", pad_token_id=301),
        "config.json: pad_token_id is 301, but the model has only 300 tokens",
    ),
    "end of a generation beyond the vocabulary": (
        lambda p: alter(p / "generation_config.json", eos_token_id=[2, 500]),
        "generation_config.json: eos_token_id is 500, but the model has only 300 tokens",
    ),
    "an end that is a text": (
        lambda p: alter(p / "generation_config.json", eos_token_id="</s>"),
        "generation_config.json: eos_token_id is '</s>'; expected a token id, a list of them or null",
    ),
    "several paddings": (
        lambda p: alter(p / "generation_config.json", pad_token_id=[2, 3]),
        r"generation_config.json: pad_token_id is \[2, 3\]; expected a token id or null",
    ),
    "a token added far away": (add_far_token, "the tokenizer has 261 tokens, the embedding only 100 rows"),
    "a beginning that is neither": (
        lambda p: alter(p / "tokenizer_config.json", add_bos_token="yes"),
        "add_bos_token is 'yes'; expected true, false or null",
    ),
    "text for number": (lambda p: alter(p / "config.json", hidden_size="48"), "hidden_size is '48'"),
    "no config": (lambda p: (p / "config.json").unlink(), "config.json cannot be read"),
    "no JSON": (lambda p: (p / "config.json").write_text("{"), "is not JSON"),
    "no object": (lambda p: (p / "config.json").write_text("[]"), "does not hold a JSON object"),
    "other family": (lambda p: alter(p / "config.json", model_type="gpt2"), "'gpt2', expected one of bloom"),
    "post-norm": (
        lambda p: alter(p / "config.json", apply_residual_connection_post_layernorm=True),
        "apply_residual_connection_post_layernorm is True.*this variant of bloom is not supported",
    ),
    "quantized": (lambda p: alter(p / "config.json", quantization_config={"bits": 4}), "quantization_config is"),
    "index elsewhere": (
        lambda p: (p / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}'),
        "'../x.safetensors', which is not a safetensors file in the same directory",
    ),
    "index of nothing": (
        lambda p: (p / "model.safetensors.index.json").write_text('{"weight_map": {"a": "x.safetensors"}}'),
        "x.safetensors is missing",
    ),
    "index wrong": (
        lambda p: (p / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model.safetensors"}}'),
        "disagree on a, transformer.h.0",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good")
    return exported(path, checkpoint(path)).path


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_refused_with_its_reason(kind: str, good: Path, tmp_path: Path) -> None:
    source = shutil.copytree(good, tmp_path / "source")
    damage, said = DAMAGES[kind]
    damage(source)
    with pytest.raises(StageError, match=said):
        imported(tmp_path / "import", source)
    if kind != "NaN":  # about values
        with pytest.raises(ArtifactError):
            HuggingFaceModel(source).check()


@pytest.mark.parametrize(
    "kind",
    [
        "no JSON",
        "no object",
        "other family",
        "quantized",
        "other heads",
        "end beyond the vocabulary",
        "one of several ends",
    ],
)
def test_what_the_config_tells_blocks_the_plan(kind: str, good: Path, tmp_path: Path) -> None:
    source = shutil.copytree(good, tmp_path / "source")
    stage = ImportModel(source=HuggingFaceDirectory(path=str(source)))
    assert stage.obstacle() is None
    damage, said = DAMAGES[kind]
    damage(source)
    assert re.search(said, stage.obstacle() or "")


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before is False"),  # opt-350m
        ("opt", {"word_embed_proj_dim": 32}, "projected embeddings .opt-350m. are not supported"),
        ("opt", {"activation_function": "gelu"}, "activation_function is 'gelu'"),
        ("llama", {"attention_bias": True}, "attention_bias is True"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "type is 'dynamic'"),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 0.5}}, "rotary_scaling|factor"),
        ("llama", {"num_key_value_heads": 4}, "not a multiple of key_value_heads 4"),
        ("llama", {"eos_token_id": []}, "eos_token_id names no token"),
        ("llama", {"rope_theta": float("inf")}, "rope_theta"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ("llama", {"rope_scaling": {"rope_type": "linear", "type": "llama3"}}, "'linear'.*its older name, is 'llama3'"),
        ("llama", {"rope_parameters": {"full_attention": {}}, "rope_scaling": None}, "differ between layers"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "rope_type is 'linear', which needs factor$"),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "needs low_freq_factor, high_freq_factor$"),
    ],
)
def test_shapes_that_are_not_computed_are_refused(family: str, changes: dict[str, Any], said: str) -> None:
    _, values = write_config(shaped(family))
    with pytest.raises(StageError, match=said):
        read_config(values | changes, "config.json")


def test_rotary_positions_in_either_spelling() -> None:
    _, values = write_config(shaped("llama3"))
    _, wanted = read_config(values, "")
    assert wanted == shaped("llama3")
    rope = {**values.pop("rope_scaling"), "rope_theta": values.pop("rope_theta")}
    assert read_config(values | {"rope_parameters": rope}, "")[1] == wanted
    _, several = read_config(values | {"rope_parameters": rope, "eos_token_id": [7, 8], "pad_token_id": None}, "")
    assert (several.end_tokens, several.pad_token_id) == ((7, 8), None)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
@settings(max_examples=60)
def test_any_config_is_read_or_refused(data: st.DataObject) -> None:
    values = write_config(shaped(data.draw(st.sampled_from(FAMILIES))))[1]
    names = data.draw(st.lists(st.sampled_from([*values, "rope_parameters", "head_dim", "n_inner"]), max_size=3))
    try:
        family, config = read_config(values | {name: data.draw(_JSON) for name in names}, "config.json")
    except StageError:
        return
    assert family.name in TABLE
    assert read_config(write_config(config)[1], "")[1] == config
