"""The reader of files: formats, labels, garbage, identity."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.base import StageError
from stages.corpus.files import Files
from stages.corpus.source import Candidate
from tests.stages.corpus.examples import write_lines


def digest_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(source: Files, max_bytes: int = 1000) -> list[Candidate]:
    return [candidate for part in source.parts() for candidate in source.read(part, max_bytes)]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_lines_carry_their_labels(tmp_path: Path, suffix: str) -> None:
    records = [{"content": "été", "license": "MIT", "path": "a/b.c", "language": 3}, {"content": "two", "more": []}]
    write_lines(tmp_path / "x" / f"in{suffix}", records)
    found = read(Files(paths=[str(tmp_path / "**" / f"*{suffix}")], text_field="content", license="CC0-1.0"))
    assert [candidate.data for candidate in found] == ["été".encode(), b"two"]
    assert [candidate.path for candidate in found] == ["a/b.c", f"x/in{suffix}"]
    assert [candidate.license for candidate in found] == ["MIT", "CC0-1.0"]
    assert [candidate.row for candidate in found] == [0, 1]
    assert found[0].language == ""  # a number is no label


def test_parquet_columns_and_empty_cells(tmp_path: Path) -> None:
    table = pa.table({"text": ["one", None, "three" * 1000], "source": ["s", "s", None], "other": [1, 2, 3]})
    pq.write_table(table, tmp_path / "t.parquet")
    found = read(Files(paths=[str(tmp_path / "*.parquet")], source="mine"))
    assert [(c.data, c.refused, c.source, c.size) for c in found] == [
        (b"one", None, "s", 3),
        (b"", "no_text", "mine", 0),
        (b"", "too_long", "mine", 5000),
    ]


def test_an_endless_line_is_counted_and_the_next_one_read(tmp_path: Path) -> None:
    endless = b"x" * 300_000
    write_lines(tmp_path / "in.jsonl", [endless, {"text": "next"}])
    found = read(Files(paths=[str(tmp_path / "in.jsonl")]))
    assert [(c.data, c.refused, c.size) for c in found] == [(b"", "too_long", 300_001), (b"next", None, 4)]


def test_a_text_file_is_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff bytes as they are")
    (tmp_path / "b.md").write_bytes(b"y" * 2000)
    found = read(Files(paths=[str(tmp_path / "*")]))
    assert [(c.path, c.data, c.refused) for c in found] == [
        ("a.txt", b"\xff bytes as they are", None),
        ("b.md", b"", "too_long"),
    ]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl.gz", b"not gzip", "a.jsonl.gz cannot be read as .gz"),
        ("a.jsonl.zst", b"not zstd at all", "a.jsonl.zst cannot be read as .zst"),
        ("a.parquet", b"PAR1 no", "a.parquet is not a readable Parquet file"),
        ("a.jsonl", b"plain text\nof two lines\n", "none of its 2 records has a text in 'text'"),
        ("a.csv", b"a,b\n", "a.csv has no suffix that can be read; expected one of .txt"),
    ],
)
def test_a_file_of_the_wrong_kind_is_one_clear_error(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(StageError, match=message):
        read(Files(paths=[str(tmp_path / "a.*")]))


def test_a_truncated_archive_is_an_error_not_fewer_documents(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl.gz", [{"text": hashlib.sha256(bytes([n])).hexdigest()} for n in range(200)])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(StageError, match=r"a\.jsonl\.gz cannot be read"):
        read(Files(paths=[str(path)]))


def test_a_parquet_file_without_the_column_names_those_it_has(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "t.parquet")
    with pytest.raises(StageError, match=r"no text column 'text' \(its columns: body string\)"):
        read(Files(paths=[str(tmp_path / "*.parquet")]))


def test_nothing_found_is_refused_when_planning(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="nothing matches"):
        Files(paths=[str(tmp_path / "*.txt")]).digest(digest_file)


def test_identity_is_content_and_names_not_place(tmp_path: Path) -> None:
    for place in ("here", "there"):
        write_lines(tmp_path / place / "sub" / "in.jsonl", [{"text": "same"}])
    here, there = (Files(paths=[str(tmp_path / place / "**/*.jsonl")]) for place in ("here", "there"))
    first = here.digest(digest_file)
    assert first == there.digest(digest_file)
    assert first != here.model_copy(update={"license": "MIT"}).digest(digest_file)
    write_lines(tmp_path / "here" / "sub" / "in.jsonl", [{"text": "other"}])
    assert first != here.digest(digest_file)
    (tmp_path / "there" / "sub" / "in.jsonl").rename(tmp_path / "there" / "in.jsonl")
    assert first != there.digest(digest_file)


def test_a_file_that_two_globs_name_is_read_once(tmp_path: Path) -> None:
    write_lines(tmp_path / "in.jsonl", [{"text": "once"}])
    assert len(read(Files(paths=[str(tmp_path / "*.jsonl"), str(tmp_path / "in.*")]))) == 1
