"""Corpus refuses what does not fit its manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from stages.artifacts.corpus import MANIFEST, Corpus, dropped_name, shard_name, warnings
from stages.artifacts.manifest import Cell, Flow, Manifest, ShardFacts, SourceFacts, Tally
from stages.base import ArtifactError
from tests.stages.corpus.examples import small_corpus


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("corpus"))


def copied(made: Corpus, folder: Path) -> Corpus:
    return Corpus(Path(shutil.copytree(made.path, folder / "copy")))


def test_documents_come_whole(made: Corpus) -> None:
    train, validation = list(made.documents("train")), list(made.documents("validation"))
    assert len(train) + len(validation) == 60
    assert {document.source for document in train} == {"news", "books"}
    assert {document.license for document in validation} == {"CC0-1.0"}


def test_describe_is_json_with_the_numbers_of_the_manifest(made: Corpus) -> None:
    described = json.loads(json.dumps(made.describe()))
    assert described["kept"]["documents"] == 60
    assert sum(tally["bytes"] for tally in described["kept by source"].values()) == described["kept"]["bytes"]


def test_a_fraction_is_a_sample_that_grows_with_it(made: Corpus) -> None:
    samples = [{d.id for d in made.documents("train", fraction)} for fraction in (0.0, 0.3, 0.7, 1.0)]
    assert samples[0] == set()
    assert samples[0] < samples[1] < samples[2] < samples[3]
    assert samples[3] == {d.id for d in made.documents("train")}
    assert {d.source for d in made.documents("train", 0.5)} == {"news", "books"}


def test_what_came_in_is_what_was_kept_and_dropped() -> None:
    with pytest.raises(ValidationError, match="are not the sum of those kept, dropped and trimmed"):
        Flow(read=Tally(documents=2, bytes=9), kept=Tally(documents=1, bytes=8), dropped={"x": Tally(documents=1)})


def edit_manifest(corpus: Corpus, change: Callable[[Any], None]) -> None:
    content = json.loads((corpus.path / MANIFEST).read_text())
    change(content)
    (corpus.path / MANIFEST).write_text(json.dumps(content))


def test_manifests_that_do_not_add_up_are_refused(made: Corpus, tmp_path: Path) -> None:
    corpus = copied(made, tmp_path)
    edit_manifest(corpus, lambda content: content["shards"][0]["splits"]["train"].update(documents=1))
    with pytest.raises(ArtifactError, match="kept by split do not add up"):
        corpus.check()


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"cells": 3}'])
def test_garbage_manifests_are_one_clear_error(made: Corpus, tmp_path: Path, content: bytes) -> None:
    corpus = copied(made, tmp_path)
    (corpus.path / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json is not a corpus's manifest"):
        corpus.check()


def damage_text(table: Any) -> Any:
    texts = ["changed", *table["text"].to_pylist()[1:]]
    return table.set_column(table.column_names.index("text"), "text", [texts])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage_text, "does not have the recorded digest"),
        (lambda table: table.slice(1), "documents, but manifest.json says"),
        (lambda table: table.take([0, *range(len(table) - 1)]), "two documents have the id|has Tally"),
        (lambda table: table.drop_columns(["license"]), "expected id, text, source"),
    ],
)
def test_shards_that_are_not_as_recorded_are_refused(
    made: Corpus, tmp_path: Path, change: Callable[[Any], Any], message: str
) -> None:
    corpus = copied(made, tmp_path)
    path = corpus.path / shard_name("train", 0)
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(ArtifactError, match=message):
        corpus.check()


def test_a_truncated_or_missing_shard_is_named(made: Corpus, tmp_path: Path) -> None:
    corpus = copied(made, tmp_path)
    path = corpus.path / shard_name("train", 0)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match=r"train-00000\.parquet is not a readable Parquet file"):
        list(corpus.documents("train"))
    path.unlink()
    with pytest.raises(ArtifactError, match=r"train-00000\.parquet"):
        corpus.check()


def test_a_ledger_that_is_not_as_recorded_is_refused(made: Corpus, tmp_path: Path) -> None:
    corpus = copied(made, tmp_path)
    (corpus.path / dropped_name(1)).write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match=r"dropped/00001\.parquet is not a readable Parquet file"):
        corpus.check()


def test_a_source_that_lost_nearly_all_documents_is_reported() -> None:
    def cell(source: str, kept: int, lost: int) -> Cell:
        tally, dropped = Tally(documents=1, bytes=kept), Tally(documents=lost, bytes=lost * 100)
        flow = Flow(
            read=Tally(documents=1 + lost, bytes=kept + lost * 100),
            kept=tally,
            dropped={"gopher_quality.too_few_words": dropped},
        )
        return Cell(source=source, language="en", license="MIT", lengths={kept.bit_length(): tally}, flow=flow)

    facts = SourceFacts(reader="files", rank=0, weight=1, operations=(), chain="")
    shards = [
        ShardFacts(source=name, splits={"train": Tally(documents=1, bytes=kept)}, dropped=lost)
        for name, kept, lost in (("bad", 9, 10), ("good", 5000, 1))
    ]
    manifest = Manifest(
        sources=dict.fromkeys(("bad", "good", "silent"), facts),
        cells=(cell("bad", 9, 10), cell("good", 5000, 1)),
        shards=tuple(shards),
    )
    assert warnings(manifest) == [
        "source bad lost 91% of its documents and 99% of its bytes, most to gopher_quality.too_few_words",
        "source silent has no documents",
    ]
