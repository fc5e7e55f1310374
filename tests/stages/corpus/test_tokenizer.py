"""The tokenizer: BLOOM's splits and special tokens, no loss, the same on every run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.corpus import Corpus
from stages.artifacts.tokenizer import SPECIAL, TOKENIZER, Tokenizer
from stages.base import ArtifactError, StageError, Stopped
from stages.corpus import tokenizer as module
from stages.corpus.tokenizer import ADVERSARIAL, LONGEST_WORD, TrainTokenizer, bloom_tokenizer, verify_round_trip
from stages.corpus.tokens import TokenizeCorpus
from stages.huggingface.model_tokenizer import ModelTokenizer
from tests.stages.corpus.examples import SAMPLE_AND_FULL, declarations, ingest, small_corpus, write_lines
from tests.stages.model.models import byte_tokenizer, small_config, small_model
from tests.support import RecordingContext, run_stage


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def trained(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, RecordingContext]:
    stage = TrainTokenizer(corpus="corpus", vocab_size=400)
    return run_stage(stage, {"corpus": corpus}, tmp_path_factory.mktemp("tokenizer"))


def test_special_tokens_are_blooms_and_the_vocabulary_as_asked(trained: tuple[Tokenizer, RecordingContext]) -> None:
    tokenizer, context = trained
    loaded = tokenizer.load()
    assert [loaded.id_to_token(index) for index in range(4)] == ["<unk>", "<s>", "</s>", "<pad>"]
    assert tokenizer.vocab_size == loaded.get_vocab_size() == context.last["vocab_size"] == 400
    assert loaded.token_to_id("</s>") == tokenizer.end_of_text


def test_a_models_tokenizer_ends_texts_as_the_model_does(tmp_path: Path, corpus: Corpus) -> None:
    model = small_model(small_config(eos_token_id=77))
    checkpoint = Checkpoint.save(tmp_path / "model", model, model.config, byte_tokenizer(tmp_path / "bytes.json"), {})
    tokenizer, context = run_stage(ModelTokenizer(model="model"), {"model": checkpoint}, tmp_path / "tokenizer")
    assert (tokenizer.end_of_text, context.last["vocab_size"]) == (77, 260)
    assert tokenizer.file.read_bytes() == checkpoint.tokenizer_path.read_bytes()
    stage = TokenizeCorpus(corpus="corpus", tokenizer="tokenizer")
    tokens, _ = run_stage(stage, {"corpus": corpus, "tokenizer": tokenizer}, tmp_path / "tokens")
    assert tokens.end_of_text == 77  # and run_stage has checked where it stands
    for content in ('{"end_of_text": 260}', '{"end_of_text": true}', "[]", "{", ""):
        (tokenizer.path / SPECIAL).write_text(content)
        with pytest.raises(ArtifactError, match="does not name a token"):
            tokenizer.check()


def test_bytes_per_token_is_of_held_out_text(trained: tuple[Tokenizer, RecordingContext], corpus: Corpus) -> None:
    tokenizer, context = trained
    texts = [document.text for document in corpus.documents("validation")]
    tokens = sum(len(tokenizer.load().encode(text).ids) for text in texts)
    assert context.last["bytes_per_token"] == pytest.approx(sum(len(text.encode()) for text in texts) / tokens)
    assert context.last["bytes_per_token"] > 2


@settings(max_examples=300)
@given(st.text())
def test_any_text_round_trips(trained: tuple[Tokenizer, RecordingContext], text: str) -> None:
    verify_round_trip(trained[0].load(), [text])


def test_special_tokens_in_a_text_are_letters(trained: tuple[Tokenizer, RecordingContext]) -> None:
    loaded = trained[0].load()
    ids = loaded.encode("a</s>b<s><pad>").ids
    assert min(ids) >= 4
    assert loaded.decode(ids) == "a</s>b<s><pad>"


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hello world", ["Hello", "Ġworld"]),
        ("a, b.c", ["a", ",", "Ġb", ".", "c"]),
        ("f(x)", ["f", "(", "x", ")"]),
        ("x  = 1", ["x", "Ġ", "Ġ=", "Ġ1"]),
        ("नमस्ते।", ["à¤¨à¤®à¤¸à¥įà¤¤à¥ĩ", "à¥¤"]),
    ],
)
def test_splits_as_blooms_pattern_does(text: str, pieces: list[str]) -> None:
    found = bloom_tokenizer().pre_tokenizer.pre_tokenize_str(text)
    assert [piece for piece, _ in found] == pieces


def test_same_file_for_any_number_of_threads(corpus: Corpus, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from tests.support import run_stage; from stages.artifacts.corpus import Corpus\n"
        "from stages.corpus.tokenizer import TrainTokenizer\n"
        "corpus = Corpus(pathlib.Path(sys.argv[1]))\n"
        "run_stage(TrainTokenizer(corpus='c', vocab_size=600), {'c': corpus}, pathlib.Path(sys.argv[2]))\n"
    )
    for threads in ("1", "2"):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads}
        command = [sys.executable, "-c", code, str(corpus.path), str(tmp_path / threads)]
        subprocess.run(command, env=environment, check=True)
    one, two = ((tmp_path / threads / "out" / TOKENIZER).read_bytes() for threads in ("1", "2"))
    assert one == two


def test_a_smaller_sample_makes_another_tokenizer(corpus: Corpus, tmp_path: Path) -> None:
    few, context = run_stage(TrainTokenizer(corpus="c", vocab_size=5000, sample_bytes=300), {"c": corpus}, tmp_path)
    assert few.vocab_size < 5000
    assert any("fewer than vocab_size 5000" in note for note in context.notes)


def test_a_tokenizer_that_loses_text_fails_the_stage() -> None:
    from tokenizers.models import WordLevel

    lossy = bloom_tokenizer()
    lossy.model = WordLevel({"word": 0, "<unk>": 1, "same": 4}, unk_token="<unk>")
    assert verify_round_trip(lossy, ["same"]) == 1
    with pytest.raises(StageError, match="does not decode a text to itself"):
        verify_round_trip(lossy, list(ADVERSARIAL))


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"model": {"type": "BPE"}}'])
def test_garbage_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / TOKENIZER).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is not a tokenizer"):
        Tokenizer(tmp_path).check()


def test_another_order_of_special_tokens_is_refused(tmp_path: Path) -> None:
    from tokenizers.trainers import BpeTrainer

    other = bloom_tokenizer()
    other.train_from_iterator(["text"], BpeTrainer(special_tokens=["</s>", "<unk>"], show_progress=False))
    other.save(str(tmp_path / TOKENIZER))
    with pytest.raises(ArtifactError, match="special token <unk> has id 1, expected 0"):
        Tokenizer(tmp_path).check()


@SAMPLE_AND_FULL
def test_every_language_of_the_declaration_of_human_rights_round_trips(
    trained: tuple[Tokenizer, RecordingContext], size: str
) -> None:
    texts = [row["text"] for row in declarations(size)]
    assert len(texts) >= (100 if size == "full" else 41)
    assert verify_round_trip(trained[0].load(), texts) > 100_000


def test_text_full_of_special_tokens_is_learned_as_letters(tmp_path: Path) -> None:
    """Merges that spell "</s>" would turn the letters into the existing special token of that name."""
    words = ["<s>one</s>", "x<s>", "</s>y", "<pad><unk>", "see</s></s>"]
    rows = [{"text": " ".join(words[(n + place) % 5] for place in range(40)) + f" {n}"} for n in range(60)]
    corpus, _ = ingest(tmp_path, write_lines(tmp_path / "in.jsonl", rows))
    stage = TrainTokenizer(corpus="corpus", vocab_size=300)
    tokenizer, _ = run_stage(stage, {"corpus": corpus}, tmp_path / "tokenizer")
    for row in rows:
        ids = tokenizer.load().encode(row["text"]).ids
        assert min(ids) >= 4
    assert len(ids) < len(rows[-1]["text"]) / 2, "and the rest of such words is learned"


LONG_RUNS = st.sampled_from(["x" * 2500, " " * 2500, "...|" * 700])
WORDS = st.lists(st.text("ab\x1c\u00a0\u3000 .,\n([|", max_size=30) | LONG_RUNS)


@given(WORDS.map("".join))
def test_no_word_of_the_training_text_is_longer_than_the_bound(text: str) -> None:
    parts = module._without_long_words([text])
    assert "".join(parts) == text
    split = bloom_tokenizer().pre_tokenizer
    for part in parts:
        assert all(stop - start <= LONGEST_WORD + 1 for _, (start, stop) in split.pre_tokenize_str(part))


def test_a_text_without_long_words_is_not_divided() -> None:
    text = ("word " * 3000) + "y" * LONGEST_WORD + " " + "।" * 10
    assert module._without_long_words([text]) == [text]


def test_a_corpus_of_hexadecimal_digits_is_trained_on(tmp_path: Path) -> None:
    blobs = [{"text": Random(number).randbytes(100_000).hex()} for number in range(8)]
    corpus, _ = ingest(tmp_path / "corpus", write_lines(tmp_path / "in.jsonl", blobs), validation_fraction=0.5)
    tokenizer, _ = run_stage(TrainTokenizer(corpus="c", vocab_size=400), {"c": corpus}, tmp_path / "tokenizer")
    assert tokenizer.vocab_size == 400


def test_a_request_to_stop_ends_the_training_at_once(tmp_path: Path) -> None:
    context = RecordingContext(tmp_path, tmp_path)
    ended = threading.Event()
    context.stop = True
    with pytest.raises(Stopped):
        module._stoppable(context, lambda: bool(ended.wait()) or None)
    ended.set()


def test_an_error_of_the_training_is_that_of_the_step(tmp_path: Path) -> None:
    def fail() -> None:
        raise StageError("no text")

    with pytest.raises(StageError, match="no text"):
        module._stoppable(RecordingContext(tmp_path, tmp_path), fail)
