"""Word vectors from a file, and from the pages of a text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from stages.base import ArtifactError, StageError, Stopped
from stages.word_alignment.linear import unit
from stages.word_alignment.page_vectors import train
from stages.word_alignment.vectors import WORDS, WordVectors
from stages.word_alignment.word_vectors import MakeWordVectors
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
