"""How a text begins and ends, from an imported model to training, evaluation and export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, processors
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.document_start import document_start, starting_with, tokenizer_start
from stages.artifacts.tokens import TokenDataset
from stages.artifacts.windows import Windows
from stages.base import StageError
from stages.corpus.tokens import TokenizeCorpus
from stages.huggingface.import_model import ImportModel
from stages.huggingface.model_tokenizer import ModelTokenizer
from stages.quantization.state_dict import quantize_state_dict
from tests.stages.corpus.examples import small_corpus
from tests.stages.huggingface.examples import alter, checkpoint, exported, imported
from tests.stages.model.models import small_config
from tests.support import run_stage


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good")
    return exported(path, checkpoint(path, "llama")).path


@pytest.fixture
def source(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "source")


def put_before_texts(source: Path, token: str) -> None:
    path = source / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    pair = (token, tokenizer.token_to_id(token))
    tokenizer.post_processor = processors.TemplateProcessing(f"{token} $A", f"{token} $A $B", [pair])
    tokenizer.save(str(path))


@pytest.mark.parametrize(
    ("of_config", "of_generation", "of_tokenizer", "wanted"),
    [
        ([2, 0, 9], None, "</s>", (2, 0, 9)),
        (2, [2, 0, 9], "</s>", (2, 0, 9)),
        ([2, 0], [9, 2], "</s>", (2, 0, 9)),
        ([2, 2], -1, "<s>", (2,)),
        (None, [9, 0], "</s>", (2, 9, 0)),
        (-1, [9, 0], None, (9, 0)),
    ],
)
def test_a_text_ends_at_the_tokens_of_all_files(
    of_config: Any, of_generation: Any, of_tokenizer: str | None, wanted: tuple[int, ...], source: Path, tmp_path: Path
) -> None:
    alter(source / "config.json", eos_token_id=of_config)
    alter(source / "generation_config.json", eos_token_id=of_generation)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        alter(source / name, eos_token=of_tokenizer)
    model = imported(tmp_path / "in", source)
    assert model.config.end_tokens == wanted
    state, config = quantize_state_dict(model.state_dict(), model.config, "int8")
    assert Checkpoint.save(tmp_path / "int8", state, config, model.tokenizer_path, {}).config.end_tokens == wanted

    made = exported(tmp_path / "out", model)
    written = list(wanted) if len(wanted) > 1 else wanted[0]
    assert json.loads((made.path / "config.json").read_text())["eos_token_id"] == written
    assert GenerationConfig.from_pretrained(made.path).eos_token_id == written
    assert AutoModelForCausalLM.from_pretrained(made.path).config.eos_token_id == written
    assert imported(tmp_path / "again", made.path).config == model.config


def test_a_model_without_the_other_special_tokens(source: Path, tmp_path: Path) -> None:
    alter(source / "config.json", bos_token_id=None, pad_token_id=-1)
    alter(source / "generation_config.json", ("bos_token_id", "pad_token_id"))
    alter(source / "tokenizer_config.json", ("bos_token", "pad_token"))
    alter(source / "special_tokens_map.json", ("bos_token", "pad_token"))
    model = imported(tmp_path / "in", source)
    assert (model.config.bos_token_id, model.config.pad_token_id) == (None, None)
    made = exported(tmp_path / "out", model).path
    assert AutoModelForCausalLM.from_pretrained(made).config.pad_token_id is None
    assert (AutoTokenizer.from_pretrained(made).bos_token, AutoTokenizer.from_pretrained(made).pad_token) == (
        None,
        None,
    )


@pytest.mark.parametrize(
    ("token", "says", "wanted"),
    [
        (None, None, ()),
        ("<s>", None, (1,)),
        (None, True, (1,)),
        ("<s>", True, (1,)),
        ("<s>", False, ()),
        ("</s>", None, (2,)),
    ],
)
def test_a_text_begins_as_the_tokenizer_says(
    token: str | None, says: bool | None, wanted: tuple[int, ...], source: Path, tmp_path: Path
) -> None:
    if token is not None:
        put_before_texts(source, token)
    alter(source / "tokenizer_config.json", add_bos_token=says)
    model, context = run_stage(ImportModel(source={"path": str(source)}), {}, tmp_path / "in")
    assert model.config.document_start == wanted
    assert tokenizer_start(model.tokenizer()) == wanted
    differ = says is not None and says is not (token is not None)
    assert any("add_bos_token" in note for note in context.notes) == differ
    made = exported(tmp_path / "out", model).path
    ids = [*wanted, *model.tokenizer().encode("héllo", add_special_tokens=False).ids]
    assert AutoTokenizer.from_pretrained(made)("héllo").input_ids == ids
    assert imported(tmp_path / "again", made).config == model.config


@pytest.mark.parametrize("start", [(), (1,), (2,), (1, 3)])
def test_an_exported_tokenizer_begins_texts_as_the_model_was_trained(start: tuple[int, ...], tmp_path: Path) -> None:
    model = checkpoint(tmp_path, document_start=start)
    assert document_start(model.config, model.tokenizer()) == start
    made = exported(tmp_path / "out", model)
    bare = model.tokenizer().encode("a text</s>", add_special_tokens=False).ids
    assert AutoTokenizer.from_pretrained(made.path)("a text</s>").input_ids == [*start, *bare]
    made.check()
    assert imported(tmp_path / "in", made.path).config.document_start == start


def test_what_stands_after_a_text_stays_there(tmp_path: Path) -> None:
    tokenizer = checkpoint(tmp_path).tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A $B", [("<s>", 1), ("</s>", 2)])
    ids = tokenizer.encode("x", add_special_tokens=False).ids
    assert starting_with(tokenizer, (3, 1)).encode("x").ids == [3, 1, *ids, 2]
    assert starting_with(tokenizer, ()).encode("x").ids == [*ids, 2]
    assert starting_with(tokenizer, (3,)).encode("x", add_special_tokens=False).ids == ids


@pytest.mark.parametrize("token", ["<s>", "</s>"])  # the second, as in OPT, is the end of a text as well
def test_documents_of_the_training_data_begin_like_texts(token: str, source: Path, tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    put_before_texts(source, token)
    model = imported(tmp_path / "in", source)
    tokenizer, _ = run_stage(ModelTokenizer(model="model"), {"model": model}, tmp_path / "tokenizer")
    stage = TokenizeCorpus(corpus="corpus", tokenizer="tokenizer", shard_tokens=1000)
    dataset: TokenDataset
    dataset, _ = run_stage(stage, {"corpus": corpus, "tokenizer": tokenizer}, tmp_path / "tokens")
    index = model.tokenizer().token_to_id(token)
    split, loaded = dataset.split("train"), model.tokenizer()
    for document, start, stop in zip(
        corpus.documents("train"), split.starts, [*split.starts[1:], split.length], strict=True
    ):
        ids = loaded.encode(document.text, add_special_tokens=False).ids
        assert np.asarray(split.tokens[int(start) : int(stop)]).tolist() == [index, *ids, 2]
    windows = Windows(split.tokens, split.length, 16, split.starts)
    for sample in range(windows.count):
        (numbers,) = windows.batch([sample])[2].numpy()
        changes = np.flatnonzero(np.diff(numbers)) + 1 + 16 * sample
        inside = split.starts[(split.starts > 16 * sample) & (split.starts < 16 * sample + 16)]
        assert changes.tolist() == inside.tolist()
    for separate in (True, False):
        assert dataset.trained_config(model.config, separate).document_start == (index,)


def test_a_model_records_how_its_documents_begin(tokens: TokenDataset) -> None:
    config = small_config()
    assert tokens.trained_config(config, separate_documents=True).document_start == ()
    assert tokens.trained_config(config, separate_documents=False).document_start == (tokens.end_of_text,)
    with pytest.raises(StageError, match=r"end with token 2 .* set the model's eos_token_id to 2"):
        tokens.trained_config(config.model_copy(update={"eos_token_id": 7}), separate_documents=True)
