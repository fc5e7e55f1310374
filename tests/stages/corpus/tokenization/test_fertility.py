"""Fairness to languages: the sample has the requested weights, and a language that falls behind is reported."""

from __future__ import annotations

import gzip
import json
import sysconfig
from pathlib import Path

import pytest

from stages.artifacts.corpus import Corpus
from stages.artifacts.tokenizer import Tokenizer
from stages.base import StageError
from stages.corpus.tokenization.fertility import Fertility, FertilityGate, behind
from stages.corpus.tokenizer import TrainTokenizer, verify_round_trip
from tests.stages.corpus.examples import declaration, ingest, source, write_lines
from tests.support import RecordingContext, run_stage, test_data

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module", params=["sample", "full"])
def size(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, size: str) -> Corpus:
    """Much English, little Basque and Vietnamese: real texts."""
    folder = tmp_path_factory.mktemp("corpus")
    if size == "sample":
        book = "\n".join(path.read_text() for path in sorted(ROOT.glob("docs/*.md")))
        texts = {"en": [book[start : start + 1500] for start in range(0, len(book), 1500)]}
        for language, code in (("eu", "eus"), ("vi", "vie")):
            text = declaration(code)
            texts[language] = [text[start : start + 400] for start in range(0, len(text), 400)]
    else:
        book = test_data("english", "moby-dick.txt").read_text()
        texts = {"en": [book[start : start + 1500] for start in range(0, 900_000, 1500)]}
        for language in ("eu", "vi"):
            with gzip.open(test_data("multilingual", "libreoffice-help", f"{language}.jsonl.gz"), "rt") as lines:
                texts[language] = [json.loads(line)["text"] for line in lines][:90]
    sources = {
        language: source(write_lines(folder / f"{language}.jsonl", [{"text": t} for t in found]), language=language)
        for language, found in texts.items()
    }
    return ingest(folder, sources=sources)[0]


def train(corpus: Corpus, folder: Path, **fields: object) -> tuple[Tokenizer, RecordingContext]:
    sample = min(300_000, corpus.manifest.size("train").bytes // 3)
    stage = TrainTokenizer.model_validate({"corpus": "c", "vocab_size": 1500, "sample_bytes": sample, **fields})
    return run_stage(stage, {"c": corpus}, folder)


def test_a_sample_weighted_by_alpha_is_fairer_to_small_languages(corpus: Corpus, tmp_path: Path) -> None:
    gate = {"otherwise": "warn", "min_bytes": 5_000}
    found: dict[float, RecordingContext] = {}
    for alpha in (1.0, 0.3):
        _, context = train(corpus, tmp_path / str(alpha), alpha=alpha, fertility=gate)
        assert {"en", "eu", "vi"} == {name[17:] for name in context.last if name.startswith("fertility_excess_")}
        assert "fertility" in context.figures
        found[alpha] = context
    assert found[0.3].last["fertility_excess_eu"] < found[1.0].last["fertility_excess_eu"] - 0.02
    assert any(note.startswith("warning: eu:") for note in found[1.0].notes)


def test_a_language_that_falls_behind_fails_the_step(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"not fair to \d of 1 languages; eu: .* lower alpha"):
        train(corpus, tmp_path / "fails", fertility={"languages": ["eu"], "min_bytes": 5_000})
    train(corpus, tmp_path / "passes", fertility={"languages": ["eu"], "min_bytes": 5_000, "max_excess": 5.0})


def test_the_gate_is_at_ten_points() -> None:
    found = {"a": Fertility(1.0999, 1.0), "b": Fertility(1.1001, 1.0)}
    assert [complaint[:2] for complaint in behind(found, FertilityGate())] == ["b:"]


def test_all_code_comes_back_as_it_was(corpus: Corpus, tmp_path: Path, size: str) -> None:
    tokenizer, _ = train(corpus, tmp_path)
    texts = []
    if size == "sample":
        library = Path(sysconfig.get_path("stdlib"))
        texts = [
            path.read_text("utf-8") for folder in (ROOT / "stages", library / "json") for path in folder.rglob("*.py")
        ]
    else:
        for file in sorted(test_data("code").glob("*.jsonl.gz")):
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                texts += [json.loads(line)["text"] for line in lines]
    assert len(texts) > (1000 if size == "full" else 150)
    assert verify_round_trip(tokenizer.load(), texts) > 100_000
