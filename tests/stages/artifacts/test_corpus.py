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

from stages.artifacts.corpus import MANIFEST, Corpus, Flow, Tally, shard_name
from stages.base import ArtifactError
from tests.stages.corpus.examples import small_corpus


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("corpus"))


def copied(made: Corpus, folder: Path) -> Corpus:
    return Corpus(Path(shutil.copytree(made.path, folder / "copy")))


def test_documents_come_whole_and_ordered(made: Corpus) -> None:
    train, validation = list(made.documents("train")), list(made.documents("validation"))
    assert len(train) + len(validation) == 60
    assert [document.id for document in train] == sorted(document.id for document in train)
    assert {document.source for document in train} == {"news", "books"}
    assert {document.license for document in validation} == {"CC0-1.0"}


def test_describe_is_json_with_the_numbers_of_the_manifest(made: Corpus) -> None:
    described = json.loads(json.dumps(made.describe()))
    assert described["kept"]["documents"] == 60
    assert sum(described["bytes by source"].values()) == described["kept"]["bytes"]


def test_what_came_in_is_what_was_kept_and_dropped() -> None:
    with pytest.raises(ValidationError, match="are not those kept plus those dropped"):
        Flow(read=Tally(documents=2, bytes=9), kept=Tally(documents=1, bytes=8), dropped={"x": Tally(documents=1)})


def edit_manifest(corpus: Corpus, change: Callable[[Any], None]) -> None:
    content = json.loads((corpus.path / MANIFEST).read_text())
    change(content)
    (corpus.path / MANIFEST).write_text(json.dumps(content))


def test_manifests_that_do_not_add_up_are_refused(made: Corpus, tmp_path: Path) -> None:
    corpus = copied(made, tmp_path)
    edit_manifest(corpus, lambda content: content["splits"]["train"]["size"].update(documents=1))
    with pytest.raises(ArtifactError, match="kept by split does not add up"):
        corpus.check()


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"total": 3}'])
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
        (damage_text, "has another digest than recorded"),
        (lambda table: table.slice(1), "documents, manifest.json says"),
        (lambda table: table.take(list(reversed(range(len(table))))), "not ordered by id"),
        (lambda table: table.drop_columns(["license"]), "a corpus has id, text, source"),
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
