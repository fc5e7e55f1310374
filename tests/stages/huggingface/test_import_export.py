"""Import from and export to Hugging Face's format, compared with `transformers`."""

from __future__ import annotations

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomModel

from pipelines.errors import ConfigError
from pipelines.graph import build
from pipelines.store.digests import sha256_of
from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.evaluation_report import Bits, EvalReport, EvalResults
from stages.base import StageError
from stages.huggingface.export_model import ExportModel
from stages.huggingface.families import write_config
from stages.huggingface.import_model import HuggingFaceDirectory, ImportModel
from stages.model.config import ExpertsConfig
from stages.model.safetensors_files import TensorFiles
from stages.quantization.state_dict import quantize_state_dict
from tests.stages.corpus.examples import small_corpus
from tests.stages.huggingface.examples import (
    add_tensors,
    alter,
    checkpoint,
    exported,
    imported,
    same,
    weights_of,
)
from tests.stages.huggingface.reference import greedy, reference
from tests.stages.model.models import FAMILIES, byte_tokenizer, random_tokens, shaped, small_config, small_model
from tests.support import run_stage

TEXTS = ["héllo wörld", "日本語 </s> <s> not special", "a\n\tb  c", ""]


@pytest.mark.parametrize(
    ("shape", "dtype", "limit"),
    [
        ("bloom", torch.float32, 40_000),
        ("bloom", torch.bfloat16, 10**9),
        ("opt", torch.float16, 40_000),
        ("llama", torch.float32, 10**9),
        ("llama3", torch.bfloat16, 40_000),
    ],
)
def test_what_is_exported_loads_elsewhere_and_comes_back_the_same(
    shape: str, dtype: torch.dtype, limit: int, tmp_path: Path
) -> None:
    model = checkpoint(tmp_path, shape, dtype)
    made = exported(tmp_path / "export", model, max_shard_bytes=limit)
    assert (made.path / "model.safetensors").exists() == (limit == 10**9)
    assert str(made.path) not in str(made.describe())  # a stage writes to a directory that is moved afterwards
    back = imported(tmp_path / "import", made.path)
    assert same(back.state_dict(), model.state_dict())
    assert back.config == model.config.model_copy(update={"document_start": ()})
    assert back.tokenizer_path.read_bytes() == model.tokenizer_path.read_bytes()
    assert back.describe()["weights"] == str(dtype).removeprefix("torch.")

    loaded: Any = AutoModelForCausalLM.from_pretrained(made.path, output_loading_info=True)
    other, loading = loaded
    assert not any(loading.values())
    assert other.dtype == dtype
    assert other.generation_config.eos_token_id == model.config.eos_token_id
    ours, theirs = model.load(), other.float()
    tokens, mask = random_tokens(2, 20), torch.ones(2, 20, dtype=torch.int64)
    mask[0, :6] = 0
    with torch.inference_mode():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=1e-5, rtol=1e-5)
        wanted = theirs.generate(tokens, attention_mask=mask, max_new_tokens=64, min_new_tokens=64, do_sample=False)
    assert torch.equal(greedy(ours, tokens, mask, 64), wanted)
    tokenizer, known = AutoTokenizer.from_pretrained(made.path), model.tokenizer()
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert ids == known.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 3)


@pytest.mark.parametrize("shape", FAMILIES)
def test_what_transformers_saves_is_read_and_written_the_same(shape: str, tmp_path: Path) -> None:
    other = reference(small_model(shaped(shape)))
    other.save_pretrained(tmp_path / "theirs", max_shard_size="60KB")
    byte_tokenizer(tmp_path / "theirs" / "tokenizer.json")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists()
    back = imported(tmp_path / "import", tmp_path / "theirs")
    tokens = random_tokens(2, 30)
    with torch.inference_mode():
        torch.testing.assert_close(back.load()(tokens), other(tokens).logits, atol=1e-5, rtol=1e-5)
    again = exported(tmp_path / "export", back)
    assert same(weights_of(again.path), weights_of(tmp_path / "theirs"))


def test_a_model_saved_without_its_head_and_old_names(tmp_path: Path) -> None:
    """As BLOOM was published: no prefix, and other words in the config."""
    model = small_model()
    state = {
        name.removeprefix("transformer."): value
        for name, value in reference(model).state_dict().items()
        if name != "lm_head.weight"
    }
    bare = BloomModel(reference(model).config)
    bare.load_state_dict(state)
    bare.save_pretrained(tmp_path)
    byte_tokenizer(tmp_path / "tokenizer.json")
    alter(tmp_path / "config.json", n_embed=48, num_attention_heads=6, n_inner=None, seq_length=128, pad_token_id=3)
    alter(tmp_path / "config.json", without=("hidden_size", "n_head"))
    assert "word_embeddings.weight" in weights_of(tmp_path)
    assert same(imported(tmp_path / "import", tmp_path).state_dict(), model.state_dict())


def test_copies_that_old_files_hold_are_taken_if_they_are_copies(tmp_path: Path) -> None:
    bloom = exported(tmp_path / "bloom", checkpoint(tmp_path / "b")).path
    add_tensors(bloom, {"lm_head.weight": weights_of(bloom)["transformer.word_embeddings.weight"]})
    imported(tmp_path / "1", bloom)
    add_tensors(bloom, {"lm_head.weight": torch.zeros(300, 48)})
    with pytest.raises(StageError, match=r"lm_head.weight differs from transformer.word_embeddings.weight"):
        imported(tmp_path / "2", bloom)
    llama = exported(tmp_path / "llama", checkpoint(tmp_path / "l", "llama")).path
    buffers = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": 10_000.0 ** -(torch.arange(4) / 4) for i in range(2)}
    add_tensors(llama, {name: value.half() for name, value in buffers.items()})
    imported(tmp_path / "3", llama)
    add_tensors(llama, {name: value / 2 for name, value in buffers.items()})
    with pytest.raises(StageError, match=r"inv_freq differs from the frequencies that rope_theta 10000.0"):
        imported(tmp_path / "4", llama)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good")
    return exported(path, checkpoint(path)).path


def test_what_has_no_family_is_not_exported(tmp_path: Path) -> None:
    model = checkpoint(tmp_path)
    state, config = quantize_state_dict(model.state_dict(), model.config, "int8")
    int8 = Checkpoint.save(tmp_path / "int8", state, config, model.tokenizer_path, {})
    with pytest.raises(StageError, match=r"a quantized model cannot be exported.*export the dense"):
        exported(tmp_path / "1", int8)
    experts = small_config(experts=ExpertsConfig(per_layer=(0, 2)))
    with pytest.raises(StageError, match="a mixture-of-experts model cannot be exported"):
        write_config(experts)
    with pytest.raises(StageError, match=r"the nearest is llama, which differs in .*parallel_blocks"):
        exported(tmp_path / "2", checkpoint(tmp_path / "palm", "palm"))
    with pytest.raises(StageError, match="the nearest is bloom, which differs in feed_forward_size"):
        write_config(small_config(feed_forward_size=50))


def test_one_tensor_at_a_time(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    get = TensorFiles.__getitem__

    def counted(files: TensorFiles, name: str) -> torch.Tensor:
        alive.append(sum(tensor() is not None for tensor in read))
        tensor = get(files, name)
        read.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(TensorFiles, "__getitem__", counted)
    exported(tmp_path / "export", imported(tmp_path / "import", good), max_shard_bytes=50_000)
    assert len(alive) > 80
    assert max(alive) <= 2


def test_the_identity_is_the_content(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good, tmp_path / "copy")
    one, other = HuggingFaceDirectory(path=str(good)), HuggingFaceDirectory(path=str(tmp_path / "copy"))
    assert one.digest(sha256_of) == other.digest(sha256_of)
    (tmp_path / "copy" / "README.md").write_text("is not read")
    assert one.digest(sha256_of) == other.digest(sha256_of)
    alter(tmp_path / "copy" / "config.json", layer_norm_epsilon=1e-6)
    assert one.digest(sha256_of) != other.digest(sha256_of)
    (tmp_path / "copy" / "tokenizer.json").unlink()
    with pytest.raises(StageError, match=r"has no tokenizer.json"):
        other.digest(sha256_of)
    with pytest.raises(StageError, match="there is no directory"):
        HuggingFaceDirectory(path="nowhere").digest(sha256_of)


def test_the_card_describes_the_run(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    bits = Bits(documents=2, bytes=1000, tokens=300, model=1500, ngram=2000, xz=2500, xz_per_document=2600)
    results = EvalResults(
        total=bits,
        sources={"odd | name": bits},
        languages={"": bits},
        ngram_order=6,
        ngram_train_bytes=10,
        completions=(),
    )
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "report.json").write_text(results.model_dump_json())
    stage = ExportModel(
        model="model", corpus="corpus", evaluation="evaluation", name="tiny: a model", license="other",
        license_link="https://example.com/terms", languages=("en", "fr"), tags=("code",), datasets=("a/b",),
        summary="For tests.",
    )  # fmt: skip
    artifacts = {
        "model": checkpoint(tmp_path), "corpus": corpus, "evaluation": EvalReport(tmp_path / "evaluation"),
    }  # fmt: skip
    made, _ = run_stage(stage, artifacts, tmp_path / "export")
    card = ModelCard.load(made.path / "README.md")
    assert (card.data.license, card.data.license_link) == ("other", "https://example.com/terms")
    assert (card.data.language, card.data.datasets) == (["en", "fr"], ["a/b"])
    assert card.data.pipeline_tag == "text-generation"
    assert {"bloom", "code"} <= set(card.data.tags)
    assert card.data.model_name == "tiny: a model"
    found = {(one.dataset_name, one.metric_type): one.metric_value for one in card.data.eval_results}
    assert found["held-out documents: all", "bits_per_byte"] == 1.5
    assert found["held-out documents: odd | name", "perplexity"] == 32.0
    assert "| optimizer steps | 3 |" in card.text
    assert "| odd \\| name | 2 | 1,000 | 1.500 | 2.000 | 2.500 | 2.600 | 32.00 |" in card.text
    assert f"{corpus.manifest.total.kept.bytes:,}" in card.text
    assert "For tests." in card.text


def test_edges_of_the_card_may_be_left_out() -> None:
    steps: dict[str, Any] = {
        "model": {"stage": "import", "source": {"path": "somewhere"}},
        "export": {"stage": "export", "model": "model", "license": "mit"},
    }
    assert build("demo", steps).steps["export"].inputs == ("model",)
    steps["corpus"] = {"stage": "corpus", "sources": {"text": {"reader": {"kind": "text", "paths": ["*.txt"]}}}}
    steps["export"]["corpus"] = "corpus"
    assert set(build("demo", steps).steps["export"].inputs) == {"model", "corpus"}
    steps["export"]["evaluation"] = "corpus"
    with pytest.raises(ConfigError, match=r"steps.export.evaluation.*a step that makes a EvalReport"):
        build("demo", steps)


def test_what_the_tokenizer_says_completes_the_config_and_a_chat_template_is_passed_on(
    good: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(good, source)
    values = json.loads((source / "config.json").read_text())
    end = values.pop("eos_token_id")
    (source / "config.json").write_text(json.dumps(values | {"pad_token_id": None, "bos_token_id": 0}))
    template = "{% for message in messages %}{{ message.content }}</s>{% endfor %}"
    alter(source / "tokenizer_config.json", chat_template=[{"name": "default", "template": template}])
    (source / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "<pad>", "special": True}}))
    checkpoint, context = run_stage(ImportModel(source={"path": str(source)}), {}, tmp_path / "in")
    assert (checkpoint.config.eos_token_id, checkpoint.config.pad_token_id) == (end, 3)
    assert checkpoint.config.bos_token_id == 0
    assert "bos_token_id is 0 in config.json, 1 in the tokenizer; that of config.json is used" in context.notes
    assert checkpoint.chat_template == template
    assert (exported(tmp_path / "out", checkpoint).path / "chat_template.jinja").read_text() == template


def test_an_evaluation_of_another_model_does_not_get_into_a_card() -> None:
    model = {"vocab_size": 512, "hidden_size": 32, "layers": 2, "heads": 4}
    steps: dict[str, dict[str, object]] = {
        "corpus": {"stage": "corpus", "sources": {"here": {"reader": {"kind": "installed", "packages": ["pydantic"]}}}},
        "tokenizer": {"stage": "tokenizer", "corpus": "corpus"},
        "tokens": {"stage": "tokens", "corpus": "corpus", "tokenizer": "tokenizer"},
        "pretrain": {"stage": "pretrain", "tokens": "tokens", "model": model},
        "quantize": {"stage": "quantize", "model": "pretrain", "tokens": "tokens"},
        "of_small": {"stage": "evaluate", "model": "quantize", "corpus": "corpus"},
        "of_whole": {"stage": "evaluate", "model": "pretrain", "corpus": "corpus"},
        "export": {"stage": "export", "model": "pretrain", "license": "mit", "evaluation": "of_whole"},
    }
    assert build("cards", steps).steps["export"]
    steps["export"]["evaluation"] = "of_small"
    with pytest.raises(ConfigError, match="of_small measures the model of quantize, but the exported model"):
        build("cards", steps)
