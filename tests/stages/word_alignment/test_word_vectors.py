"""Word vectors from a file, and from the pages of a text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.corpus import Corpus
from stages.base import ArtifactError, StageError, Stopped
from stages.quantization.state_dict import quantize_state_dict
from stages.word_alignment.linear import unit
from stages.word_alignment.page_vectors import train
from stages.word_alignment.texts import WORD
from stages.word_alignment.vectors import WORDS, WordVectors
from stages.word_alignment.word_vectors import MakeWordVectors
from tests.stages.corpus.examples import ingest, write_lines
from tests.stages.huggingface.examples import checkpoint
from tests.stages.word_alignment.spaces import artifact
from tests.support import RecordingContext, run_stage

TOPICS = {"animals": ["cat", "dog", "cow"], "tools": ["saw", "axe", "drill"], "food": ["bread", "soup", "rice"]}


def topical_pages(count: int = 300, seed: int = 0) -> list[list[str]]:
    """Pages of a topic each, with words that are on all of them."""
    generator = np.random.default_rng(seed)
    topics = list(TOPICS.values())
    return [
        ["the", "and", *generator.choice(topics[number % 3], 4).tolist(), *generator.choice(["of", "to"], 1).tolist()]
        for number in range(count)
    ]


def test_words_that_share_pages_are_near() -> None:
    words, vectors = train(topical_pages(), vocabulary=100, dimensions=4, min_pages=3)
    assert words[:2] == ["and", "the"]
    assert set(words) == {"the", "and", "of", "to", *(word for topic in TOPICS.values() for word in topic)}
    rows = unit(vectors)
    place = {word: number for number, word in enumerate(words)}
    for topic in TOPICS.values():
        inside = min(float(rows[place[topic[0]]] @ rows[place[word]]) for word in topic)
        outside = max(
            float(rows[place[topic[0]]] @ rows[place[word]])
            for other in TOPICS.values() if other is not topic for word in other
        )  # fmt: skip
        assert inside > 0.9 > 0.5 > outside


def test_training_has_no_chance_in_it_and_keeps_the_most_frequent() -> None:
    first, again = (train(topical_pages(), vocabulary=8, dimensions=4, min_pages=3) for _ in range(2))
    assert first[0] == again[0]
    assert len(first[0]) == 8
    np.testing.assert_array_equal(first[1], again[1])
    with pytest.raises(StageError, match="the text has 13 words that are on 3 pages or more, for 20 dimensions"):
        train(topical_pages(), vocabulary=100, dimensions=20, min_pages=3)


def test_the_vectors_are_the_svd_of_ppmi() -> None:
    """Against the definition, written with loops: columns of U sqrt(s) have the squared length s."""
    pages = topical_pages(60)
    words, vectors = train(pages, vocabulary=100, dimensions=5, min_pages=1)
    counts = np.array([[sum(a in page and b in page for page in pages) for b in words] for a in words], float)
    context = counts.sum(axis=0) ** 0.75
    expected = np.zeros_like(counts)
    for a, b in np.argwhere(counts > 0):
        joint = counts[a, b] / counts.sum()
        expected[a, b] = max(0.0, np.log(joint / (counts[a].sum() / counts.sum()) / (context[b] / context.sum())))
    values = np.linalg.svd(expected, compute_uv=False)[:5]
    np.testing.assert_allclose((vectors**2).sum(axis=0), values, rtol=1e-4)


def test_the_stage_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "en.vec"
    path.write_text("3 2\nthe 1 2\nhouse 3 4\nthe 5 6\n")
    stage = MakeWordVectors.model_validate(
        {"language": "en", "path": str(path), "text": {"kind": "file", "path": "unused"}}
    )
    assert stage.text is None  # a path replaces the text, which then is not part of the fingerprint
    vectors, context = run_stage(stage, {}, tmp_path / "step")
    assert vectors.load()[0] == ["the", "house"]
    assert vectors.describe()["duplicates"] == 1
    assert context.last == {"words": 2, "dimensions": 2}
    assert "1 rows of repeated words" in context.notes[0]


def test_the_stage_trains_on_a_text(tmp_path: Path) -> None:
    path = tmp_path / "en.txt"
    path.write_text("".join("<page>\n" + " ".join(page) + "\n" for page in topical_pages()))
    settings = {"language": "xx", "text": {"kind": "file", "path": path, "substitute": True}}
    stage = MakeWordVectors.model_validate(settings | {"training": {"dimensions": 4}})
    vectors, context = run_stage(stage, {}, tmp_path / "step")
    assert vectors.facts.substituted
    assert "the" not in vectors.load()[0]
    assert "vji" in vectors.load()[0]  # "the"
    assert "planted" in context.notes[0]


def corpus_of_topics(folder: Path) -> Corpus:
    """Half of the documents, of the language "aa", are topical pages; the other half is of "bb"."""
    records = [
        {"text": f"{number} " + " ".join(page) + " 0" * 60, "language": ("aa", "bb")[number % 2]}
        for number, page in enumerate(topical_pages())
    ]
    path = write_lines(folder / "topics.jsonl", records)
    return ingest(folder, path, source={"reader": {"fields": {"language": "language"}}})[0]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_of_topics(tmp_path_factory.mktemp("corpus"))


def test_the_stage_trains_on_the_documents_of_a_corpus(corpus: Corpus, tmp_path: Path) -> None:
    settings = {"language": "aa", "corpus": "corpus", "training": {"dimensions": 4}}
    stage = MakeWordVectors.model_validate(settings | {"corpus_language": "aa", "text": {"kind": "file", "path": "x"}})
    assert stage.text is None  # the corpus replaces it
    vectors, _ = run_stage(stage, {"corpus": corpus}, tmp_path / "step")
    pages = [WORD.findall(document.text.lower()) for document in corpus.documents("train") if document.language == "aa"]
    words, expected = train(pages, vocabulary=2500, dimensions=4, min_pages=3)
    assert 0 < len(pages) < corpus.manifest.size("train").documents
    assert vectors.load()[0] == words
    np.testing.assert_array_equal(vectors.load()[1], expected)
    stage = MakeWordVectors.model_validate(settings | {"corpus_language": "zz"})
    with pytest.raises(StageError, match="has the language 'zz'; it has: aa, bb"):
        run_stage(stage, {"corpus": corpus}, tmp_path / "none")


def test_skip_gram_puts_words_of_a_topic_near_each_other_and_has_one_result(corpus: Corpus, tmp_path: Path) -> None:
    pytest.importorskip("gensim")
    training = {"method": "skip_gram", "dimensions": 10, "epochs": 40}
    stage = MakeWordVectors.model_validate({"language": "aa", "corpus": "corpus", "training": training})
    first, again = (run_stage(stage, {"corpus": corpus}, tmp_path / name)[0].load() for name in ("first", "again"))
    np.testing.assert_array_equal(first[1], again[1])
    place, rows = {word: number for number, word in enumerate(first[0])}, unit(first[1])

    def similarity(one: str, other: str) -> float:
        return float(rows[place[one]] @ rows[place[other]])

    for topic in TOPICS.values():
        assert similarity(topic[0], topic[1]) > max(
            similarity(topic[0], word) for other in TOPICS.values() if other is not topic for word in other
        )


def test_a_checkpoint_gives_the_mean_embedding_of_the_tokens_of_a_word(corpus: Corpus, tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "model")
    settings = {"language": "aa", "corpus": "corpus", "checkpoint": "model"}
    stage = MakeWordVectors.model_validate(settings)
    vectors, _ = run_stage(stage, {"corpus": corpus, "model": model}, tmp_path / "step")
    words, rows = vectors.load()
    assert vectors.facts.origin == "checkpoint"
    assert words[:2] == ["and", "the"]
    loaded, embedding = model.tokenizer(), model.state_dict()["word_embeddings.weight"].float().numpy()
    ids = loaded.encode(" drill", add_special_tokens=False).ids
    np.testing.assert_allclose(rows[words.index("drill")], embedding[ids].mean(axis=0), rtol=1e-6)
    state, config = quantize_state_dict(model.state_dict(), model.config, "int8")
    quantized = Checkpoint.save(tmp_path / "quantized", state, config, model.tokenizer_path, {})
    with pytest.raises(StageError, match="the embedding of this model is quantized"):
        run_stage(stage, {"corpus": corpus, "model": quantized}, tmp_path / "refused")


def test_the_first_words_are_read_alone(tmp_path: Path) -> None:
    made = artifact(tmp_path / "many", np.arange(120_000, dtype=np.float32).reshape(40_000, 3) + 1, "en", "w")
    words, vectors = made.load(20_000)
    assert (words[-1], vectors[-1].tolist()) == ("w19999", [59_998, 59_999, 60_000])
    assert len(made.load()[0]) == 40_000


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "en.vec", "corpus": "corpus"}, "need neither corpus nor checkpoint"),
        ({"path": "en.vec", "checkpoint": "model"}, "need neither corpus nor checkpoint"),
        ({"corpus_language": "en"}, "there is no corpus"),
    ],
)
def test_origins_that_exclude_each_other_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MakeWordVectors.model_validate({"language": "en", **fields})


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="nothing to make word vectors of"):
        run_stage(MakeWordVectors(language="en"), {}, tmp_path / "nothing")
    with pytest.raises(ValidationError, match="language"):
        MakeWordVectors(language="not a name")
    stage = MakeWordVectors.model_validate({"language": "en", "path": tmp_path / "none.vec"})
    assert stage.path is not None
    with pytest.raises(StageError, match="is not a file"):
        stage.path.digest(lambda path: "")


def test_training_stops_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "en.txt"
    path.write_text("<page>\na b c\n")
    stage = MakeWordVectors.model_validate({"language": "en", "text": {"kind": "file", "path": path}})
    with pytest.raises(Stopped):
        stage.run(RecordingContext(tmp_path, tmp_path, stop=True))


def test_a_changed_artifact_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "en.vec"
    path.write_text("the 1 2\nhouse 3 4\n")
    stage = MakeWordVectors.model_validate({"language": "en", "path": path})
    vectors, _ = run_stage(stage, {}, tmp_path / "step")
    words = vectors.path / WORDS
    words.write_text("the\nthe\n")
    with pytest.raises(ArtifactError, match="expected 2 distinct words"):
        WordVectors(vectors.path).check()
    words.unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        WordVectors(vectors.path).check()
