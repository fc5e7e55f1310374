"""The quality classifier: trained in a pipeline, its score an operation with a threshold, and a column."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file

from stages.artifacts.corpus import Corpus
from stages.base import ArtifactError, StageError
from stages.corpus.ingest import IngestCorpus
from stages.corpus.operations.operation import Draft, Drop
from stages.corpus.operations.quality import Quality
from stages.corpus.quality import TrainQuality
from stages.corpus.quality_model import FACTS, WEIGHTS, QualityModel
from tests.stages.corpus.examples import ENGLISH, HINDI, all_documents, digests, ingest, source, write_lines
from tests.support import run_stage

GOOD = [
    "the",
    "committee",
    "discussed",
    "an",
    "old",
    "bridge",
    "because",
    "engineers",
    "reported",
    "that",
    "it",
    "moved",
]
BAD = [
    "buy",
    "cheap",
    "now",
    "click",
    "here",
    "best",
    "price",
    "free",
    "shipping",
    "subscribe",
    "login",
    "cart",
    "menu",
]


def texts(words: list[str], count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=40)) + f" {seed}{number}" for number in range(count)]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    folder = tmp_path_factory.mktemp("corpora")
    found = {}
    for seed, (name, words) in enumerate({"good": GOOD, "other": BAD}.items()):
        path = write_lines(folder / f"{name}.jsonl", [{"text": text} for text in texts(words, 80, seed)])
        found[name] = ingest(folder / name, path)[0]
    return found


def trained(corpora: dict[str, Corpus], folder: Path) -> QualityModel:
    stage = TrainQuality(good="good", other="other", table_bits=12, epochs=3)
    model: QualityModel = run_stage(stage, corpora, folder)[0]
    return model


@pytest.fixture(scope="module")
def model(corpora: dict[str, Corpus], tmp_path_factory: pytest.TempPathFactory) -> QualityModel:
    return trained(corpora, tmp_path_factory.mktemp("model"))


def test_good_text_scores_high_and_other_text_low(model: QualityModel) -> None:
    score = model.scorer()
    assert min(map(score, texts(GOOD, 10, 7))) > 0.8
    assert max(map(score, texts(BAD, 10, 7))) < 0.2
    assert model.facts.accuracy == 1
    assert 0 <= score("") <= 1
    assert score(HINDI) != score(ENGLISH)
    assert model.facts.percentiles[5] <= model.percentile(5.5) <= model.facts.percentiles[6]
    assert json.dumps(model.describe())


def test_the_same_documents_and_seed_give_the_same_bytes(
    corpora: dict[str, Corpus], model: QualityModel, tmp_path: Path
) -> None:
    assert digests(trained(corpora, tmp_path).path) == digests(model.path)


def test_the_operation_drops_below_its_minimum(model: QualityModel) -> None:
    good, bad = (Draft(texts(words, 1, 8)[0], path="p", language="en") for words in (GOOD, BAD))
    for operation in (Quality(model=model, minimum=0.5), Quality(model=model, minimum_percentile=0)):
        function = operation.function()
        dropped = function(bad)
        assert isinstance(dropped, Drop)
        assert dropped.rule == "low_quality"
    assert isinstance(Quality(model=model, minimum=0.5).function()(good), Draft)
    assert isinstance(Quality(model=model, minimum=0).function()(bad), Draft)
    assert isinstance(Quality(model=model, minimum=0.5, languages=("fr",)).function()(bad), Draft)
    both: dict[str, Any] = {"minimum": 0.5, "minimum_percentile": 5}
    for bounds in ({}, both):
        with pytest.raises(ValidationError, match="set either minimum or minimum_percentile"):
            Quality(model=model, **bounds)


def test_a_crawl_is_filtered_by_a_model_of_the_same_pipeline(model: QualityModel, tmp_path: Path) -> None:
    crawl = [{"text": text} for words in (GOOD, BAD) for text in texts(words, 40, 9)]
    path = write_lines(tmp_path / "crawl.jsonl", crawl)
    operations = [{"operation": "quality", "model": "quality", "minimum": 0.5}]
    declared = source(path, operations=operations, keep_values=["quality.low_quality"])
    stage = IngestCorpus(sources={"crawl": declared}, validation_fraction=0.2)
    corpus, _ = run_stage(stage, {"quality": model}, tmp_path / "out")
    assert corpus.manifest.total.dropped["quality.low_quality"].documents == 40
    assert all(document.text.split()[0] in GOOD for document in all_documents(corpus))


def test_a_corpus_without_documents_in_the_language_is_refused(corpora: dict[str, Corpus], tmp_path: Path) -> None:
    with pytest.raises(StageError, match="good has no training documents in fr: change languages"):
        run_stage(TrainQuality(good="good", other="other", languages=("fr",)), corpora, tmp_path)


def test_a_damaged_model_is_refused(corpora: dict[str, Corpus], tmp_path: Path) -> None:
    model = trained(corpora, tmp_path)
    whole = (model.path / FACTS).read_text()
    (model.path / FACTS).write_text(whole.replace('"table_bits": 12', '"table_bits": 13'))
    with pytest.raises(ArtifactError, match="does not fit"):
        model.check()
    (model.path / FACTS).write_text("{}")
    with pytest.raises(ArtifactError, match="not a quality model's facts"):
        model.check()
    (model.path / FACTS).write_text(whole)
    save_file({"weights": np.full(1 << 12, np.nan, np.float32), "bias": np.zeros(1, np.float32)}, model.path / WEIGHTS)
    with pytest.raises(ArtifactError, match="not finite"):
        model.check()
    (model.path / WEIGHTS).write_bytes(b"no")
    with pytest.raises(ArtifactError, match="not a readable safetensors file"):
        model.check()
