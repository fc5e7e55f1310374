"""The readers of records and of text: formats, labels, garbage, identity, ranges, other file systems."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.base import StageError
from stages.corpus.readers.csv_files import Csv
from stages.corpus.readers.datasets import Datasets
from stages.corpus.readers.files import Files
from stages.corpus.readers.jsonl import JsonLines
from stages.corpus.readers.parquet import Parquet
from stages.corpus.readers.text_files import Text
from tests.stages.corpus.examples import write_lines
from tests.stages.corpus.readers.support import digest_file, read, saved_dataset, seen


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_lines_carry_their_labels(tmp_path: Path, suffix: str) -> None:
    records = [{"content": "été", "license": "MIT", "path": "a/b.c", "language": 3}, {"content": "two", "more": []}]
    write_lines(tmp_path / "x" / f"in{suffix}", records)
    found = read(Files(paths=[str(tmp_path / "**" / f"*{suffix}")], text_field="content"))
    assert [candidate.data for candidate in found] == ["été".encode(), b"two"]
    assert [candidate.path for candidate in found] == ["a/b.c", f"x/in{suffix}"]
    assert [candidate.license for candidate in found] == ["MIT", ""]
    assert [candidate.position for candidate in found] == [0, len(json.dumps(records[0])) + 1]
    assert found[0].language == "3"


def test_labels_may_have_other_names_and_be_nested(tmp_path: Path) -> None:
    rows = [
        {"text": "one", "lang": "sw", "id": "a/1", "meta": {"uri": "http://x", "licence": "MIT"}, "language": "no"},
        {"text": "two", "lang": None, "meta": {"uri": None, "licence": ["MIT"]}},
        {"text": "three", "meta": "{}", "meta.uri": "http://whole"},
    ]
    fields = {"language": "lang", "path": "id", "url": "meta.uri", "license": "meta.licence"}
    path = write_lines(tmp_path / "in.jsonl", rows)
    found = read(Files(paths=[str(path)], fields=fields))
    labels = [(c.language, c.path, c.url, c.license) for c in found]
    assert labels == [("sw", "a/1", "http://x", "MIT"), ("", "in.jsonl", "", ""), ("", "in.jsonl", "http://whole", "")]
    assert read(JsonLines(paths=[str(path)], fields=fields)) == found
    pq.write_table(pa.Table.from_pylist(rows[:1]), tmp_path / "t.parquet")
    (row,) = read(Parquet(paths=[str(tmp_path / "t.parquet")], fields=fields))
    assert (row.language, row.path, row.url, row.license) == labels[0]
    (tmp_path / "t.csv").write_text("text,lang\none,sw\n")
    assert read(Csv(paths=[str(tmp_path / "t.csv")], fields={"language": "lang"}))[0].language == "sw"
    with pytest.raises(StageError, match=r"no column 'lung' \(its columns: .*\): correct reader\.fields\.language"):
        read(Parquet(paths=[str(tmp_path / "t.parquet")], fields={"language": "lung"}))
    with pytest.raises(ValidationError, match=r"fields\.languag"):
        JsonLines(paths=[str(path)], fields={"languag": "lang"})
    assert JsonLines(paths=[str(path)], fields=fields).digest(digest_file) != JsonLines(paths=[str(path)]).digest(
        digest_file
    )


def test_parquet_columns_and_empty_cells(tmp_path: Path) -> None:
    table = pa.table({"text": ["one", None, "three" * 1000], "url": ["http://x", "s", None], "other": [1, 2, 3]})
    pq.write_table(table, tmp_path / "t.parquet")
    found = read(Parquet(paths=[str(tmp_path / "*.parquet")]))
    assert seen(found) == [(b"one", None, 3), (b"", "no_text", 0), (b"", "too_long", 5000)]
    assert found[2].refused is not None
    assert (found[0].url, found[2].refused.value, found[2].refused.threshold) == ("http://x", 5000, 1000)


def test_csv_rows_with_quotes_and_labels(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b'id,text,license\r\n1,"two\nlines, ""quoted""",MIT\r\n2,\xff,\r\n3\r\n')
    found = read(Csv(paths=[str(tmp_path / "t.csv")]))
    assert seen(found) == [(b'two\nlines, "quoted"', None, 19), (b"\xed\xb3\xbf", None, 3), (b"", "not_a_record", 1)]
    assert [c.license for c in found] == ["MIT", "", ""]
    (tmp_path / "t.tsv").write_text("text\tn\nhere\t1\n")
    assert seen(read(Csv(paths=[str(tmp_path / "t.tsv")]))) == [(b"here", None, 4)]


def test_links_in_a_circle_add_no_files(tmp_path: Path) -> None:
    write_lines(tmp_path / "a" / "in.jsonl", [{"text": "once"}])
    (tmp_path / "a" / "b").symlink_to(tmp_path, target_is_directory=True)
    assert [part.name for part in JsonLines(paths=[str(tmp_path / "**" / "*.jsonl")]).parts()] == ["a/in.jsonl"]


def test_a_text_file_is_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff bytes as they are")
    (tmp_path / "b.md.gz").write_bytes(gzip.compress(b"y" * 2000))
    assert seen(read(Text(paths=[str(tmp_path / "*")]))) == [
        (b"\xff bytes as they are", None, 19),
        (b"", "too_long", 2000),
    ]


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=60), max_size=20), st.integers(1, 200), st.booleans())
def test_ranges_of_bytes_hold_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], range_bytes: int, ended: bool
) -> None:
    path = tmp_path_factory.mktemp("ranges") / "in.jsonl"
    lines = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    path.write_text(lines + "\n" * ended)
    reader = JsonLines(paths=[str(path)])
    if path.stat().st_size:
        assert [part.size for part in reader.split(reader.parts()[0], range_bytes)]
    whole, ranges = read(reader), read(reader, range_bytes=range_bytes)
    assert [c.data.decode() for c in whole] == texts
    assert ranges == whole


@pytest.mark.parametrize("range_bytes", [200, 1000, 4000])
def test_ranges_of_row_groups_hold_every_row_once(tmp_path: Path, range_bytes: int) -> None:
    table = pa.table({"text": [f"row {n}" for n in range(100)]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=7)
    reader = Parquet(paths=[str(tmp_path / "t.parquet")])
    assert len(reader.split(reader.parts()[0], range_bytes)) > 1 or range_bytes == 4000
    assert read(reader, range_bytes=range_bytes) == read(reader)


def test_a_parquet_file_without_the_column_names_those_it_has(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "t.parquet")
    with pytest.raises(StageError, match=r"no text column 'text' \(its columns: body string\)"):
        read(Parquet(paths=[str(tmp_path / "*.parquet")]))


def test_nothing_found_is_refused_when_planning(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no file matches"):
        Files(paths=[str(tmp_path / "*.txt")]).digest(digest_file)


def test_identity_is_content_and_names_not_place(tmp_path: Path) -> None:
    for place in ("here", "there"):
        write_lines(tmp_path / place / "sub" / "in.jsonl", [{"text": "same"}])
    here, there = (Files(paths=[str(tmp_path / place / "**/*.jsonl")]) for place in ("here", "there"))
    first = here.digest(digest_file)
    assert first == there.digest(digest_file)
    assert first != here.model_copy(update={"text_field": "body"}).digest(digest_file)
    write_lines(tmp_path / "here" / "sub" / "in.jsonl", [{"text": "other"}])
    assert first != here.digest(digest_file)
    (tmp_path / "there" / "sub" / "in.jsonl").rename(tmp_path / "there" / "in.jsonl")
    assert first != there.digest(digest_file)


def test_a_file_that_two_globs_name_is_read_once(tmp_path: Path) -> None:
    write_lines(tmp_path / "in.jsonl", [{"text": "once"}])
    assert len(read(Files(paths=[str(tmp_path / "*.jsonl"), str(tmp_path / "in.*")]))) == 1


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz", "in.parquet", "in.csv", "data"])
@pytest.mark.parametrize("when", ["before", "while"])
def test_a_file_that_is_changed_while_the_step_runs_is_one_clear_error(tmp_path: Path, name: str, when: str) -> None:
    path = tmp_path / name
    reader: Files | Datasets = Files(paths=[str(tmp_path / "in.*")])
    if name == "data":
        saved_dataset(path, ["some text"] * 3, files=1)
        path, reader = next(path.glob("*.arrow")), Datasets(paths=[str(path)])
    elif name.endswith("parquet"):
        pq.write_table(pa.table({"text": ["some text"] * 3}), path)
    elif "jsonl" in name:
        write_lines(path, [{"text": "some text"}] * 3)
    else:
        path.write_text("text\nsome text\n")
    (part,) = reader.parts()
    found = reader.read(part, 1000)
    if when == "while":
        next(found)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    with pytest.raises(StageError, match="was changed after the step began: run the step again"):
        list(found)


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    found = fsspec.filesystem("memory")
    yield found
    found.rm("/", recursive=True)


def test_any_file_system_that_fsspec_knows(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl.gz", [{"text": "far"}, {"text": "away"}])
    memory.pipe("/bucket/sub/in.jsonl.gz", path.read_bytes())
    pq.write_table(pa.table({"text": ["a row"]}), tmp_path / "t.parquet")
    memory.pipe("/bucket/t.parquet", (tmp_path / "t.parquet").read_bytes())
    remote = Files(paths=["memory://bucket/**/*.*"])
    assert [(c.path, c.data) for c in read(remote)] == [
        ("sub/in.jsonl.gz", b"far"), ("sub/in.jsonl.gz", b"away"), ("t.parquet", b"a row"),
    ]  # fmt: skip
    before = remote.digest(digest_file)
    assert before == remote.digest(digest_file)
    memory.pipe("/bucket/sub/in.jsonl.gz", path.read_bytes()[:-9])
    assert remote.digest(digest_file) != before
    with pytest.raises(StageError, match=r"memory:///bucket/sub/in\.jsonl\.gz cannot be read"):
        read(remote)
    with pytest.raises(StageError, match="no file matches memory://bucket/none"):
        read(Files(paths=["memory://bucket/none.jsonl"]))
    with pytest.raises(StageError, match="cannot be listed"):
        read(Files(paths=["nosuch://bucket/a.jsonl"]))


RECORDS = [{"text": f"record {number}", "n": [number]} for number in range(5)]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", "[\n" + ",\n".join(map(json.dumps, RECORDS)) + "\n]\n", "holds a JSON array, at byte 0"),
        ("a.json", json.dumps(RECORDS), "holds a JSON array, at byte 0"),
        ("a.json", "\n \n" + json.dumps(RECORDS, indent=1), "holds a JSON array, at byte 3"),
        ("a.jsonl", "\ufeff[" + json.dumps(RECORDS[0]) + "]", "holds a JSON array"),
        ("a.json", json.dumps(RECORDS[0], indent=2), "holds JSON objects over several lines, at byte 0"),
        ("a.csv", "text,text\nfirst,second\n", "has two columns 'text'"),
    ],
)
@pytest.mark.parametrize("range_bytes", [None, 40])
def test_a_file_of_which_records_would_be_lost_is_refused(
    tmp_path: Path, name: str, data: str, message: str, range_bytes: int | None
) -> None:
    (tmp_path / name).write_text(data)
    with pytest.raises(StageError, match=message):
        read(Files(paths=[str(tmp_path / name)]), range_bytes=range_bytes)


def test_several_objects_of_a_line_are_several_documents(tmp_path: Path) -> None:
    line = "".join(json.dumps({"text": f"é {number}"}, ensure_ascii=False) for number in range(3))
    rest = '{"text": "whole"} {"text": "cut'
    (tmp_path / "a.jsonl").write_text(f"{line}\n{line.replace('}{', '} {')}\n{rest}\n")
    found = read(JsonLines(paths=[str(tmp_path / "a.jsonl")]))
    assert [candidate.data.decode() for candidate in found[:6]] == ["é 0", "é 1", "é 2"] * 2
    assert len({candidate.position for candidate in found}) == 7
    assert seen(found[6:]) == [(b"", "not_a_record", len(rest) + 1)]


def test_rows_with_other_cells_than_the_header_are_counted(tmp_path: Path) -> None:
    rows = ["1,the road was closed, and they walked on", "2,short", "3", '4,"whole, with a comma"', "", "5,an end,,"]
    (tmp_path / "t.csv").write_text("id,text\n" + "\n".join(rows))
    found = read(Csv(paths=[str(tmp_path / "t.csv")]))
    assert [(c.data.decode(), c.refused and (c.refused.value, c.refused.threshold)) for c in found] == [
        ("", ("3 cells", "2 columns")),
        ("short", None),
        ("", ("1 cells", "2 columns")),
        ("whole, with a comma", None),
        ("", ("4 cells", "2 columns")),
    ]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_scalars_are_labels_and_what_cannot_be_one_is_named(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"text": "a", "id": 1000, "score": 0.5, "flag": True, "none": None, "many": ["x"]},
        {"text": "b", "id": 0, "score": float("nan"), "flag": False, "none": None, "many": None},
    ]
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        write_lines(path, rows)
    fields = {"path": "id", "url": "score", "package": "flag", "license": "none", "language": "many"}
    found = read(Files(paths=[str(path)], fields=fields))
    assert [(c.path, c.url, c.package, c.license, c.language) for c in found] == [
        ("1000", "0.5", "true", "", ""),
        ("0", "", "false", "", ""),
    ]
    assert [c.unusable for c in found] == [("language",), ()]


def test_declared_fields_that_a_record_lacks_are_named(tmp_path: Path) -> None:
    rows = [{"text": "a", "url": "x\ny"}, {"text": "b", "meta": None}, {"text": "c", "meta": {"lang": "sw"}}]
    path = write_lines(tmp_path / "t.jsonl", rows)
    found = read(JsonLines(paths=[str(path)], fields={"language": "meta.lang"}))
    assert [c.unusable for c in found] == [("url", "language"), (), ()]
    assert [c.language for c in found] == ["", "", "sw"]
