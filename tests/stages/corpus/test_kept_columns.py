"""Columns of a corpus that follow its own: fields of records, and the numbers that operations compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from stages.artifacts.corpus import Corpus, shard_name
from stages.artifacts.manifest import SPLITS
from stages.base import StageError
from stages.corpus.remove import RemoveDocuments
from tests.stages.corpus.examples import all_documents, ingest, prose, source, write_lines
from tests.support import run_stage


def rows(corpus: Corpus) -> list[dict[str, Any]]:
    files = [corpus.path / shard_name(split, n) for n in range(len(corpus.manifest.shards)) for split in SPLITS]
    return [row for file in files if file.exists() for row in pq.read_table(file).to_pylist()]


def corpus_of(folder: Path, **fields: Any) -> Corpus:
    records: list[dict[str, Any]] = [
        {"text": prose(number, 20 + number), "date": f"2024-01-{number + 1:02d}", "meta": {"n": number, "tags": ["a"]}}
        for number in range(30)
    ]
    records[3] |= {"date": None}
    write_lines(folder / "in.jsonl", records)
    write_lines(folder / "plain.jsonl", [{"text": prose(number + 100)} for number in range(10)])
    kept = source(
        folder / "in.jsonl",
        reader={"keep": ["date", "meta.n", "meta.tags", "missing"]},
        operations=[{"operation": "words", "minimum": 10}, {"operation": "normalise"}],
        keep_values=["words.too_few"],
    )
    return ingest(folder / "out", sources={"kept": kept, "plain": source(folder / "plain.jsonl")}, **fields)[0]


def test_fields_and_values_become_columns_of_their_source(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, deduplicate=[{"rule": "exact"}, {"rule": "lines", "min_count": 2}])
    found = rows(corpus)
    assert len(found) == len(all_documents(corpus)) == 40
    kept = sorted((row for row in found if row["source"] == "kept"), key=lambda row: int(row["meta.n"]))
    assert [row["date"] for row in kept[2:5]] == ["2024-01-03", "", "2024-01-05"]
    assert {row["meta.tags"] for row in kept} == {'["a"]'}
    assert {row["missing"] for row in kept} == {""}
    assert [row["words.too_few"] for row in kept] == [len(row["text"].split()) for row in kept]
    assert all("date" not in row for row in found if row["source"] == "plain")


def test_a_threshold_is_raised_without_measuring_again(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path)
    bounds: dict[str, Any] = {"minimums": {"words.too_few": 30}, "maximums": {"words.too_few": 40}}
    stricter, _ = run_stage(RemoveDocuments(corpus="c", **bounds), {"c": corpus}, tmp_path / "stricter")
    left = rows(stricter)
    assert {row["source"] for row in left} == {"kept", "plain"}
    counts = [row["words.too_few"] for row in left if row["source"] == "kept"]
    expected = [row["words.too_few"] for row in rows(corpus) if row["source"] == "kept"]
    assert sorted(counts) == sorted(count for count in expected if 30 <= count <= 40)
    dropped = stricter.manifest.total.dropped
    assert dropped["remove.minimum"].documents + dropped["remove.maximum"].documents == 30 - len(counts)
    assert all(row["date"] for row in left if row["source"] == "kept")
    declared = source(tmp_path / "in.jsonl", operations=[{"operation": "words", "minimum": 1}])
    with pytest.raises(StageError, match=r"source kept has no value 'words\.few'; expected one of words\.too_few:"):
        ingest(tmp_path / "x", sources={"kept": {**declared, "keep_values": ["words.few"]}})
    with pytest.raises(StageError, match=r"no document .* value 'words\.words'; expected one of words\.too_few"):
        run_stage(RemoveDocuments(corpus="c", minimums={"words.words": 3}), {"c": corpus}, tmp_path / "wrong")


@pytest.mark.parametrize(
    ("reader", "values", "said"),
    [
        ({"keep": ["url"]}, [], "'url' is a column of every document already"),
        ({}, ["wrods.too_few"], "is not of an operation of this source: words"),
        ({"keep": ["words.too_few"]}, ["words.too_few"], r"is in reader\.keep as well"),
    ],
)
def test_a_column_that_cannot_be_is_refused(
    tmp_path: Path, reader: dict[str, Any], values: list[str], said: str
) -> None:
    words = {"operation": "words", "minimum": 3}
    declared = source("x.jsonl", reader=reader, operations=[words], keep_values=values)
    with pytest.raises(ValidationError, match=said):
        ingest(tmp_path, sources={"s": declared})
