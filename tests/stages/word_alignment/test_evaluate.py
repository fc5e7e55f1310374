"""The evaluation of an alignment, from a dictionary file and from a planted language; and dictionaries."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.base import VERDICT, ArtifactError, StageError
from stages.word_alignment.dictionaries import Dictionary, in_part, known_pairs, planted_pairs
from stages.word_alignment.evaluate import EvaluateLexicon
from stages.word_alignment.lexicon_report import REPORT, LexiconReport
from stages.word_alignment.texts import substituted
from stages.word_alignment.vectors import write
from tests.stages.word_alignment.spaces import artifact, planted
from tests.stages.word_alignment.test_align import aligning
from tests.support import run_stage


@pytest.fixture(scope="module")
def alignment(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, np.ndarray]:
    folder = tmp_path_factory.mktemp("alignment")
    source, target, _, places = planted(120, 8)
    sides = {"a": artifact(folder / "a", source, "aa", "a"), "b": artifact(folder / "b", target, "bb", "b")}
    pairs = folder / "pairs.txt"
    pairs.write_text("".join(f"a{place} b{places[place]}\n" for place in range(60)))
    stage = aligning(method="procrustes", dictionary=str(pairs), refinement_rounds=1)
    return run_stage(stage, sides, folder / "step", draw=False)[0], places


def evaluated(alignment: Any, path: Path, lines: list[str], **fields: Any) -> tuple[LexiconReport, Any]:
    dictionary = path / "test.tsv"
    dictionary.write_text("".join(f"{line}\n" for line in lines))
    stage = EvaluateLexicon.model_validate({"alignment": "a", "dictionary": {"path": dictionary}} | fields)
    return run_stage(stage, {"a": alignment}, path / "step", draw=True)


def test_a_right_and_a_wrong_dictionary(alignment: tuple[Any, np.ndarray], tmp_path: Path) -> None:
    places = alignment[1]
    right = [f"A{place}\tb{places[place]}" for place in range(60, 100)]
    wrong = [f"a{place}\tb{places[(place + 60) % 120]}" for place in range(100, 110)]
    report, context = evaluated(alignment[0], tmp_path, [*right, *wrong, "a3\tunknown", "unknown\tb3"])
    results = report.results
    assert results.after.queries == 50
    assert results.dictionary_words == 52
    assert context.last["coverage"] == pytest.approx(50 / 52)
    assert results.after.p_at_1 == pytest.approx(0.8, abs=0.03)
    assert results.backward.p_at_1 == pytest.approx(0.8, abs=0.03)
    assert len(results.mistakes) >= 10
    mistake = next(one for one in results.mistakes if one.word == "a105")
    assert mistake.answers[0][0] == f"b{places[105]}"
    assert mistake.expected == (f"b{places[45]}",)
    assert len(results.by_iteration) == 2
    assert results.by_iteration[-1] == results.after.p_at_1
    assert context.figures == ["accuracy"]
    page = (report.path / "pages" / "mistakes.html").read_text()
    assert f"b{places[45]}" in page
    assert "a0" in (report.path / "pages" / "nearest_words.html").read_text()
    assert context.highlights[VERDICT].startswith("P@1 ")
    assert report.describe()["queries"] == 50


def test_a_planted_language_brings_its_dictionary(tmp_path: Path) -> None:
    source, target, _, places = planted(120, 8)
    sides = {"a": artifact(tmp_path / "a", source, "aa", "a")}
    words = [""] * 120
    for place, word in enumerate(sides["a"].load()[0]):
        words[places[place]] = substituted(word)
    (tmp_path / "b").mkdir()
    facts = sides["a"].facts.model_copy(update={"language": "bb", "substituted": True})
    sides["b"] = write(tmp_path / "b", words, target, facts)
    found, _ = run_stage(aligning(method="procrustes"), sides, tmp_path / "align", draw=False)
    report, _ = run_stage(EvaluateLexicon(alignment="a"), {"a": found}, tmp_path / "evaluate", draw=False)
    assert report.results.after.p_at_1 > 0.98
    assert report.results.after.queries == sum(in_part(f"a{number}", "test") for number in range(120))


def test_refusals(alignment: tuple[Any, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no dictionary to evaluate with"):
        run_stage(EvaluateLexicon(alignment="a"), {"a": alignment[0]}, tmp_path)
    with pytest.raises(StageError, match="hold no pair of the dictionary"):
        evaluated(alignment[0], tmp_path, ["b1\ta1"])
    (tmp_path / REPORT).write_text("{}")
    with pytest.raises(ArtifactError, match="is not a lexicon report"):
        LexiconReport(tmp_path).check()


def test_dictionaries_are_read_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "d.tsv.gz"
    lines = ["House\tmaison", "new york\tnew york", "", "a b", *(f"w{number} v{number}" for number in range(100))]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    pairs = Dictionary(path=path).pairs()
    assert pairs[:3] == [("house", "maison"), ("new york", "new york"), ("a", "b")]
    train, test = (Dictionary(path=path, part=part).pairs() for part in ("train", "test"))
    assert sorted(train + test) == sorted(pairs)
    assert 30 < len(train) < 73
    assert known_pairs(pairs, ["w2", "house", "w1"], ["v1", "v2"]) == {0: {1}, 2: {0}}
    assert planted_pairs(["the"], False, "all") == [("the", substituted("the"))]
    assert planted_pairs([substituted("the")], True, "all") == [(substituted("the"), "the")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a b\na b c\n", "line 2: expected two words, got 3"),
        (b"a\tb\nc\n", "line 2: expected two words, got 1"),
        (b"a \xff\n", "line 1: expected text in UTF-8"),
    ],
)
def test_a_bad_dictionary_is_named_by_its_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "d.txt"
    path.write_bytes(data)
    with pytest.raises(StageError, match=message):
        Dictionary(path=path).pairs()
    with pytest.raises(StageError, match="is not a file"):
        Dictionary(path=tmp_path / "none").digest(lambda path: "")
