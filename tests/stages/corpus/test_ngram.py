"""The n-gram model equals its definition if its tables are not full, and distinguishes odd text from good text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.base import ArtifactError, StageError
from stages.corpus.ngram import TrainNgram
from stages.corpus.ngram_model import FACTS, TABLES, NgramModel
from stages.corpus.operations.operation import Draft
from stages.corpus.operations.registry import OPERATIONS
from tests.stages.corpus.examples import ingest, prose, small_corpus, write_lines
from tests.stages.corpus.operations.support import rule_of
from tests.support import run_stage


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> NgramModel:
    folder = tmp_path_factory.mktemp("ngram")
    stage = TrainNgram(corpus="corpus", order=4, table_bits=16)
    artifact: NgramModel
    artifact, context = run_stage(stage, {"corpus": small_corpus(folder / "corpus")}, folder / "model")
    assert context.last["held_out_perplexity"] == artifact.facts.percentiles[50]
    return artifact


def test_percentiles_are_of_the_held_out_documents(model: NgramModel) -> None:
    facts = model.facts
    assert facts.held_out_documents > 0
    assert model.percentile(0) == facts.percentiles[0]
    assert model.percentile(100) == facts.percentiles[100]
    assert facts.percentiles[98] <= model.percentile(98.5) <= facts.percentiles[99]
    assert json.dumps(model.describe())


def test_odd_text_is_dropped_and_text_alike_kept(model: NgramModel) -> None:
    perplexity_filter = OPERATIONS.load("perplexity")
    function = perplexity_filter(model=model, maximum_percentile=100).function()  # type: ignore[call-arg]
    assert rule_of(function(Draft(prose(9), path="p"))) is None
    assert rule_of(function(Draft("zQ#9 ~~ Xk]jw!! 0xDEAD ÿÿÿ %%% vbnm", path="p"))) == "high_perplexity"
    text = prose(9)
    least = model.perplexity()(text)
    for minimum, rule in ((least, None), (least * 1.01, "low_perplexity")):
        easy = perplexity_filter(model=model, minimum=minimum).function()  # type: ignore[call-arg]
        assert rule_of(easy(Draft(text, path="p"))) == rule
    some = perplexity_filter(model=model, languages=("fr",), maximum=0.5).function()  # type: ignore[call-arg]
    assert rule_of(some(Draft("anything", path="p", language="en"))) is None
    assert rule_of(some(Draft("anything", path="p", language="fr_FR"))) == "high_perplexity"


def test_roots_quality_takes_a_model_a_language(model: NgramModel) -> None:
    numbers = {"min_words": 0, "max_perplexity": model.percentile(100)}
    operation = OPERATIONS.load("roots_quality")(  # type: ignore[call-arg]
        parameters={"changes": {"default": numbers}}, language_score="off", language_models={"tum": model}
    )
    odd = "zqx jkv wpy qqj xzk vvw kjq zxw pyv jqz"
    assert rule_of(operation.function()(Draft(odd, path="p", language="tum"))) == "perplexity"
    assert rule_of(operation.function()(Draft(odd, path="p", language="fon"))) is None


def test_training_takes_the_languages_asked_for(tmp_path: Path) -> None:
    records = [{"text": prose(number), "language": ["en", "fr"][number % 2]} for number in range(40)]
    corpus, _ = ingest(tmp_path / "corpus", write_lines(tmp_path / "texts.jsonl", records))
    trained, _ = run_stage(TrainNgram(corpus="c", table_bits=12, languages=("fr",)), {"c": corpus}, tmp_path / "fr")
    assert trained.facts.documents < 21
    with pytest.raises(StageError, match="no training documents in zu"):
        run_stage(TrainNgram(corpus="c", table_bits=12, languages=("zu",)), {"c": corpus}, tmp_path / "zu")
    limited, _ = run_stage(TrainNgram(corpus="c", table_bits=12, limit_bytes=100), {"c": corpus}, tmp_path / "limit")
    assert limited.facts.train_bytes == 100


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (FACTS, b"{", "not an n-gram model's facts"),
        (FACTS, None, "cannot be read"),
        (TABLES, b"garbage", "not a readable safetensors file"),
        (TABLES, None, "not a readable safetensors file"),
    ],
)
def test_damage_is_refused(model: NgramModel, tmp_path: Path, file: str, content: bytes | None, said: str) -> None:
    for name in (FACTS, TABLES):
        (tmp_path / name).write_bytes((model.path / name).read_bytes())
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ArtifactError, match=said):
        NgramModel(tmp_path).check()


def test_tables_of_another_size_are_refused(model: NgramModel, tmp_path: Path) -> None:
    (tmp_path / TABLES).write_bytes((model.path / TABLES).read_bytes())
    facts = json.loads((model.path / FACTS).read_text())
    (tmp_path / FACTS).write_text(json.dumps({**facts, "order": 3}))
    with pytest.raises(ArtifactError, match=r"does not fit model\.json"):
        NgramModel(tmp_path).check()
    (tmp_path / FACTS).write_text(json.dumps({**facts, "percentiles": facts["percentiles"][::-1]}))
    with pytest.raises(ArtifactError, match="not 101 ascending numbers"):
        NgramModel(tmp_path).check()
