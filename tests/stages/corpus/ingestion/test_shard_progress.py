"""Progress moves within a shard, whoever works on it, and is reported for every source."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.corpus.ingestion import shard_progress
from stages.corpus.ingestion.shard_progress import IN_PROGRESS, ProgressMeter, reporting_progress
from stages.corpus.ingestion.shards import Shard
from stages.corpus.readers.jsonl import JsonLines
from stages.corpus.readers.parquet import Parquet
from stages.corpus.readers.read_position import current_position, tracking_position
from stages.corpus.readers.reader import Part
from stages.corpus.readers.warc import Warc
from tests.stages.corpus.examples import ingest, prose, source, write_lines
from tests.support import RecordingContext

LONG = prose(0, 300)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_progress, "INTERVAL_S", 0.01)


def shards(*sizes: int) -> list[Shard]:
    return [Shard(index, f"source{index}", (Part("p", size),)) for index, size in enumerate(sizes)]


def until(condition: Any) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def test_a_meter_sees_what_workers_report_about_their_shards(tmp_path: Path) -> None:
    context = RecordingContext(tmp_path, tmp_path)
    share = 0.25
    with ProgressMeter(context, "read", shards(1000, 3000), tmp_path) as meter:
        with reporting_progress(tmp_path / "00001", lambda: share):
            until(lambda: context.progressed[-1] == (750, 4000))
            share = 0.5
            until(lambda: context.progressed[-1] == (1500, 4000))
            share = 7.0  # not done before it is done
            until(lambda: context.progressed[-1] == (2997, 4000))
        meter.finished(1)
        assert context.progressed[-1] == (3000, 4000)
        meter.finished(0)
    assert context.progressed[0] == (0, 4000)
    assert context.progressed[-1] == (4000, 4000)
    assert not list((tmp_path / IN_PROGRESS).iterdir())


def test_a_source_may_have_the_name_of_a_reported_quantity(tmp_path: Path) -> None:
    reported: list[dict[str, Any]] = []

    class KeepsInfo(RecordingContext):
        def progress(self, done: float, total: float, unit: str = "", /, **info: float | str) -> None:
            reported.append(info)

    named = [Shard(place, name, (Part("p", 100),)) for place, name in enumerate(("read", "done", "total", "unit"))]
    with ProgressMeter(KeepsInfo(tmp_path, tmp_path), "read", named, tmp_path) as meter:
        meter.finished(1)
    assert reported[0] == {"source read": "0%", "done": "0%", "total": "0%", "unit": "0%"}, "nothing was read: no speed"
    assert reported[-1].keys() == {"read", "source read", "total", "unit"}
    assert float(reported[-1]["read"].removesuffix(" MB/s")) > 0, "also far below a megabyte a second"


def test_what_killed_workers_left_and_garbage_is_not_taken_for_progress(tmp_path: Path) -> None:
    context = RecordingContext(tmp_path, tmp_path)
    (tmp_path / IN_PROGRESS).mkdir()
    (tmp_path / IN_PROGRESS / "00000").write_text("0.9")
    with ProgressMeter(context, "read", shards(1000), tmp_path):
        for name, content in (("00007", "0.5"), ("x", "0.5"), ("00000", ""), ("00000", "\xff")):
            (tmp_path / IN_PROGRESS / name).write_text(content)
            seen = len(context.progressed)
            until(lambda seen=seen: len(context.progressed) > seen + 1)
    assert set(context.progressed) == {(0, 1000)}


def test_work_continues_where_nothing_can_be_reported(tmp_path: Path) -> None:
    (tmp_path / IN_PROGRESS).write_text("a file where the folder should be")
    with reporting_progress(tmp_path / "00000", lambda: 0.5):
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["plain", "range", "gz", "parquet", "parquet range", "warc"])
def test_readers_report_their_position(tmp_path: Path, kind: str) -> None:
    texts = [f"{number} {LONG}" for number in range(1500)]
    if kind.startswith("parquet"):
        file = tmp_path / "a.parquet"
        pq.write_table(pa.table({"text": texts}), file, row_group_size=100)
        reader: Any = Parquet(paths=(str(file),))
    elif kind == "warc":
        file = tmp_path / "a.warc.gz"
        records = (
            f"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: {len(text)}\r\n\r\n{text}\r\n\r\n" for text in texts
        )
        file.write_bytes(b"".join(gzip.compress(record.encode()) for record in records))
        reader = Warc(paths=(str(file),))
    else:
        file = write_lines(tmp_path / ("a.jsonl.gz" if kind == "gz" else "a.jsonl"), [{"text": text} for text in texts])
        reader = JsonLines(paths=(str(file),))
    (whole,) = reader.parts()
    part = reader.split(whole, whole.size // 3 + 1)[-1] if kind.endswith("range") else whole
    seen = [current_position() / part.size for _ in reader.read(part, 1 << 20)]
    assert len(seen) > 400
    assert seen == sorted(seen)
    assert seen[0] < 0.5 < seen[len(seen) * 3 // 4]
    assert len(set(seen)) >= 3
    assert seen[-1] <= 1.01
    assert current_position() == 0


def test_a_file_that_was_just_closed_is_at_its_start(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("text")
    with (tmp_path / "f").open("rb") as file:
        file.read(2)
        with tracking_position(file.tell):
            assert current_position() == 2
            file.close()
            assert current_position() == 0


def test_an_ingest_reports_progress_within_its_shards(tmp_path: Path) -> None:
    lines = [{"text": f"{number} {LONG}"} for number in range(4000)]
    one = write_lines(tmp_path / "in" / "one.jsonl", lines)
    _, context = ingest(tmp_path, sources={"one": source(one)}, shard_bytes=1 << 30, draw=False)
    total = one.stat().st_size
    assert {size for _, size in context.progressed} == {total}
    assert any(0 < done < total for done, _ in context.progressed), "there is one shard only"
    assert json.dumps(context.progressed[-1]) == json.dumps([total, total])
