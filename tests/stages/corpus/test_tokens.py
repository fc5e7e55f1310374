"""Token datasets: every token leads back to its document, and damage is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.artifacts.corpus import Corpus
from stages.artifacts.held_out_loss import held_out_batches
from stages.artifacts.tokenizer import Tokenizer
from stages.artifacts.tokens import FACTS, ShardedTokens, TokenDataset, TokenSplit, index_name, shard_name
from stages.base import ArtifactError, StageError
from stages.corpus.ngram import TrainNgram
from stages.corpus.tokenization.fertility import FertilityGate
from stages.corpus.tokenizer import TrainTokenizer
from stages.corpus.tokens import TokenizeCorpus
from tests.stages.corpus.examples import ingest, prose, small_corpus, write_lines
from tests.support import run_stage


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def tokenizer(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    stage = TrainTokenizer(corpus="corpus", vocab_size=300)
    made: Tokenizer
    made, _ = run_stage(stage, {"corpus": corpus}, tmp_path_factory.mktemp("tokenizer"))
    return made


@pytest.fixture(scope="module")
def dataset(corpus: Corpus, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> TokenDataset:
    stage = TokenizeCorpus(corpus="corpus", tokenizer="tokenizer", shard_tokens=1000)
    made: TokenDataset
    made, context = run_stage(stage, {"corpus": corpus, "tokenizer": tokenizer}, tmp_path_factory.mktemp("tokens"))
    assert context.last["train_tokens"] == made.split("train").length
    return made


@pytest.fixture(scope="module")
def train(dataset: TokenDataset) -> TokenSplit:
    return dataset.split("train")


def test_every_token_leads_back_to_its_document(
    corpus: Corpus, tokenizer: Tokenizer, dataset: TokenDataset, train: TokenSplit
) -> None:
    assert len(dataset.facts.splits["train"].shards) > 2
    documents = list(corpus.documents("train"))
    assert len(train) == len(documents)
    loaded, position = tokenizer.load(), 0
    for number, document in enumerate(documents):
        found = train.document(number)
        assert (found.id, found.source, found.path, found.license, found.operations) == (
            document.id, document.source, document.path, document.license, document.operations,
        )  # fmt: skip
        assert found.operations == corpus.manifest.sources[found.source].chain
        assert (found.start, found.bytes) == (position, len(document.text.encode()))
        ids = np.asarray(train.tokens[found.start : found.stop]).tolist()
        assert ids[-1] == dataset.end_of_text
        assert loaded.decode(ids[:-1]) == document.text
        for inside in {found.start, (found.start + found.stop) // 2, found.stop - 1}:
            assert train.document_at(inside) == found
        position = found.stop
    assert position == train.length


def test_documents_in_a_range_are_those_that_it_touches(train: TokenSplit) -> None:
    second, third = train.document(1), train.document(2)
    assert [d.id for d in train.documents_in(second.stop - 1, second.stop + 1)] == [second.id, third.id]
    assert [d.id for d in train.documents_in(second.start, second.stop)] == [second.id]
    assert list(train.documents_in(5, 5)) == []
    assert len(list(train.documents_in(0, train.length))) == len(train)
    for start, stop in ((-1, 4), (0, train.length + 1)):
        with pytest.raises(IndexError):
            list(train.documents_in(start, stop))
    with pytest.raises(IndexError):
        train.document_at(train.length)


@settings(max_examples=200)
@given(
    st.lists(st.integers(1, 5), max_size=5),
    st.integers(-30, 30) | st.none(),
    st.integers(-30, 30) | st.none(),
)
def test_sharded_tokens_read_as_one_array(sizes: list[int], start: int | None, stop: int | None) -> None:
    whole = np.arange(sum(sizes), dtype="<u2")
    tokens = ShardedTokens(np.split(whole, np.cumsum(sizes)[:-1]) if sizes else [])
    assert len(tokens) == len(whole)
    np.testing.assert_array_equal(tokens[start:stop], whole[start:stop])
    assert [tokens[place] for place in range(len(whole))] == whole.tolist()
    if sizes:
        assert tokens[-1] == whole[-1]
    with pytest.raises(IndexError):
        tokens[len(whole)]


def test_shards_are_mapped_not_read(train: TokenSplit) -> None:
    piece = train.tokens[3:9]
    assert isinstance(piece, np.memmap)
    assert piece.dtype == np.uint16
    assert not piece.flags.writeable


def test_a_vocabulary_past_uint16_takes_uint32(corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path) -> None:
    loaded = tokenizer.load()
    loaded.add_tokens([f"\ue000{number}" for number in range(1 << 16)])
    wide = Tokenizer(tmp_path / "wide")
    wide.path.mkdir()
    loaded.save(str(wide.file))
    made, _ = run_stage(TokenizeCorpus(corpus="c", tokenizer="t"), {"c": corpus, "t": wide}, tmp_path)
    assert made.facts.token_type == "<u4"
    assert made.split("validation").tokens[0:2].dtype == np.uint32


def test_runs_again_to_the_same_bytes(
    corpus: Corpus, tokenizer: Tokenizer, dataset: TokenDataset, tmp_path: Path
) -> None:
    stage = TokenizeCorpus(corpus="c", tokenizer="t", shard_tokens=1000)
    again, _ = run_stage(stage, {"c": corpus, "t": tokenizer}, tmp_path)
    names = sorted(path.name for path in dataset.path.iterdir())
    assert names == sorted(path.name for path in again.path.iterdir())
    assert all((dataset.path / name).read_bytes() == (again.path / name).read_bytes() for name in names)


def copied(dataset: TokenDataset, folder: Path) -> TokenDataset:
    return TokenDataset(Path(shutil.copytree(dataset.path, folder / "copy")))


def test_a_truncated_shard_is_refused(dataset: TokenDataset, tmp_path: Path) -> None:
    copy = copied(dataset, tmp_path)
    path = copy.path / shard_name("train", 1)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ArtifactError, match=r"train-00001\.tokens has \d+ bytes, but \d+ tokens of 2 bytes"):
        copy.split("train")
    path.unlink()
    with pytest.raises(ArtifactError, match=r"train-00001\.tokens cannot be read"):
        copy.split("train")


@pytest.mark.parametrize(
    ("position", "token", "message"),
    [(4, 300, "holds token 300, but vocab_size is 300"), (4, 2, "end-of-text"), (-1, 50, "end-of-text")],
)
def test_garbled_shards_are_refused(
    dataset: TokenDataset, tmp_path: Path, position: int, token: int, message: str
) -> None:
    copy = copied(dataset, tmp_path)
    tokens = np.fromfile(copy.path / shard_name("train", 0), "<u2")
    tokens[position] = token
    tokens.tofile(copy.path / shard_name("train", 0))
    with pytest.raises(ArtifactError, match=message):
        copy.check()


def test_another_splits_index_is_refused(dataset: TokenDataset, tmp_path: Path) -> None:
    copy = copied(dataset, tmp_path)
    shutil.copyfile(copy.path / index_name("validation"), copy.path / index_name("train"))
    with pytest.raises(ArtifactError, match="split train has"):
        copy.split("train")


@pytest.mark.parametrize("name", [FACTS, index_name("train")])
@pytest.mark.parametrize("content", [b"", b"{}", b"ARROW1\0\0garbage"])
def test_garbage_is_one_clear_error(dataset: TokenDataset, tmp_path: Path, name: str, content: bytes) -> None:
    copy = copied(dataset, tmp_path)
    (copy.path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=name):
        copy.split("train")


def test_describe_is_json(dataset: TokenDataset) -> None:
    described = json.loads(json.dumps(dataset.describe()))
    assert described["splits"]["train"]["documents"] == len(dataset.split("train"))


def test_a_corpus_without_validation_documents_becomes_tokens_and_what_needs_them_says_so(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", [{"text": prose(number)} for number in range(20)])
    corpus, _ = ingest(tmp_path / "corpus", path, validation_fraction=0)
    stage = TrainTokenizer(corpus="corpus", vocab_size=300)
    tokenizer, context = run_stage(stage, {"corpus": corpus}, tmp_path / "tokenizer")
    assert context.last["checked_megabytes"] > 0  # of training texts
    inputs = {"corpus": corpus, "tokenizer": tokenizer}
    dataset, _ = run_stage(TokenizeCorpus(corpus="corpus", tokenizer="tokenizer"), inputs, tmp_path / "tokens")
    dataset.check()
    assert dataset.split("train").length
    assert not dataset.split("validation").length
    with pytest.raises(StageError, match=r"measured on the validation split, .* raise validation_fraction"):
        next(held_out_batches(dataset, sequence_length=16, samples=4))
    gated = stage.model_copy(update={"fertility": FertilityGate()})
    with pytest.raises(StageError, match="fertility is measured on validation documents"):
        run_stage(gated, {"corpus": corpus}, tmp_path / "gated")
    with pytest.raises(StageError, match=r"no validation documents, .*set validation_fraction"):
        run_stage(TrainNgram(corpus="corpus"), {"corpus": corpus}, tmp_path / "ngram")
