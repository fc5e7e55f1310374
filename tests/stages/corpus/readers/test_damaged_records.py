"""Damaged files and records: the record is counted, or the file is named."""

from __future__ import annotations

import gzip
import hashlib
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.base import StageError
from stages.corpus.readers.csv_files import Csv
from stages.corpus.readers.files import Files
from stages.corpus.readers.jsonl import JsonLines
from stages.corpus.readers.parquet import Parquet
from tests.stages.corpus.examples import write_lines
from tests.stages.corpus.readers.support import read, seen

PACKED = gzip.compress(b'{"text": "a"}\n', mtime=0)  # the same in every process that collects tests


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("nul.csv", b'text\nfirst\n"a\0b"\nlast\n', [(b"first", None), (b"a\0b", None), (b"last", None)]),
        ("mark.csv", b"\xef\xbb\xbftext\nhello\n", [(b"hello", None)]),
        ("odd.csv", b'text\n"a"b\n"c"d', [(b"ab", None), (b"cd", None)]),
        ("long.csv", b"text,n\n" + b"x" * 3000 + b",1\nok,2\n", [(b"", "too_long"), (b"ok", None)]),
        ("mark.jsonl", b'\xef\xbb\xbf{"text": "one"}\n{"text": "two"}\n', [(b"one", None), (b"two", None)]),
        ("bad.jsonl", b'{"text": "\xff"}\n{"text": "ok"}\n', [(b"", "not_a_record"), (b"ok", None)]),
        ("nul.jsonl", b'\0\0\0\0\n{"text": "ok"}\n', [(b"", "not_a_record"), (b"ok", None)]),
        ("deep.jsonl", b'{"n":' + b"[" * 50_000 + b'\n{"text": "ok"}\n', [(b"", "not_a_record"), (b"ok", None)]),
        ("huge.jsonl", b'{"n": ' + b"9" * 5000 + b'}\n{"text": "ok"}\n', [(b"", "not_a_record"), (b"ok", None)]),
    ],
)
def test_a_bad_record_is_counted_and_the_others_read(
    tmp_path: Path, name: str, data: bytes, found: list[tuple[bytes, str | None]]
) -> None:
    (tmp_path / name).write_bytes(data)
    assert [each[:2] for each in seen(read(Files(paths=[str(tmp_path / name)])))] == found


@pytest.mark.parametrize("damage", ["cut", "half", "flipped", "footer", "length", "empty"])
def test_a_damaged_parquet_file_is_a_clear_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "t.parquet"
    texts = pa.array([f"row {n} of a table" * 20 for n in range(2000)])
    pq.write_table(pa.table({"text": texts}), path, row_group_size=200)
    data = path.read_bytes()
    path.write_bytes({
        "cut": data[:-50], "half": data[: len(data) // 2], "length": data[:-8] + b"\xff\xff\xff\x7fPAR1", "empty": b"",
        "flipped": data[:1000] + bytes(byte ^ 255 for byte in data[1000:1100]) + data[1100:],
        "footer": data[:-300] + bytes(200) + data[-100:],
    }[damage])  # fmt: skip
    with pytest.raises(StageError, match=r"t\.parquet is not a readable Parquet file"):
        read(Parquet(paths=[str(path)]))


def test_a_text_column_that_is_not_utf8_gives_its_other_rows(tmp_path: Path) -> None:
    texts = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff\xfe bad", b"ok"], pa.binary()).buffers())
    pq.write_table(pa.table({"text": texts}), tmp_path / "t.parquet")
    assert [each.data for each in read(Parquet(paths=[str(tmp_path / "t.parquet")]))] == [b"\xff\xfe bad", b"ok"]


def test_a_quote_that_never_closes_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('text\n"' + "x" * 10_000)
    with pytest.raises(StageError, match=r"t\.csv is not a readable CSV file: line \d+: field larger than field limit"):
        read(Csv(paths=[str(tmp_path / "t.csv")]))


def test_an_endless_line_is_counted_and_the_next_one_read(tmp_path: Path) -> None:
    endless = b"x" * 300_000
    write_lines(tmp_path / "in.jsonl", [endless, {"text": "next"}])
    assert seen(read(JsonLines(paths=[str(tmp_path / "in.jsonl")]))) == [
        (b"", "too_long", 300_001),
        (b"next", None, 4),
    ]


def test_an_endless_line_is_not_read_again_for_every_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lines(tmp_path / "in.jsonl", [{"text": "one"}, b"x" * 2_000_000, {"text": "two"}])
    read_bytes = 0

    class Counting(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            nonlocal read_bytes
            read_bytes += (found := super().readinto(buffer) or 0)
            return found

    opened = "stages.corpus.readers.file_systems.open"
    monkeypatch.setattr(opened, lambda url, _, size: io.BufferedReader(Counting(url), 4096), raising=False)
    found = read(JsonLines(paths=[str(path)]), range_bytes=100_000)
    assert seen(found) == [(b"one", None, 3), (b"", "too_long", 2_000_001), (b"two", None, 3)]
    assert read_bytes < 3 * path.stat().st_size  # with each range to the end of the line: 11 times


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl.gz", b"not gzip", "a.jsonl.gz cannot be read as .gz"),
        ("a.jsonl.zst", b"not zstd at all", "a.jsonl.zst cannot be read as .zst"),
        ("a.parquet", b"PAR1 no", "a.parquet is not a readable Parquet file"),
        ("a.jsonl", b"plain text\nof two lines\n", "none of its 2 records has a text in the field 'text'"),
        (
            "a.jsonl",
            b'{"id": 1, "body": "x"}',
            r"has a text in the field 'text' \(fields of the first record: id, body\): set",
        ),
        ("a.csv", b"a,b\n1,2\n", r"no text column 'text' \(its columns: a text, b text\)"),
        ("a.jsonl.gz", b"", "a.jsonl.gz cannot be read as .gz: it is empty"),
        ("a.jsonl.zst", b"", "a.jsonl.zst cannot be read as .zst: it is empty"),
        ("a.jsonl.gz", PACKED + b"more", "cannot be read as .gz: Not a gzipped file"),
        ("a.jsonl.gz", PACKED[:-8] + bytes(8), "cannot be read as .gz: CRC check failed"),
        ("a.csv", b"", "no text column 'text'"),
        ("a.csv", b'text\nwhole\n"not who', "a.csv is not a readable CSV file: line 3: the file ends within quotes"),
        (
            "a.csv",
            b"text\n" + b"x," * 20_000,
            "a.csv is not a readable CSV file: line 1: more than 16000 characters without a line end",
        ),
        ("a.docx", b"a,b\n", "a.docx; expected a suffix of .txt"),
    ],
)
def test_a_file_of_the_wrong_kind_is_one_clear_error(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(StageError, match=message):
        read(Files(paths=[str(tmp_path / "a.*")]))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("lost", [1, 50, 0.5])
def test_a_truncated_archive_is_an_error_not_fewer_documents(tmp_path: Path, suffix: str, lost: float) -> None:
    texts = [{"text": hashlib.sha256(bytes([n])).hexdigest()} for n in range(200)]
    path = write_lines(tmp_path / f"a.jsonl{suffix}", texts)
    data = path.read_bytes()
    path.write_bytes(data[: -int(lost) if lost >= 1 else int(len(data) * lost)])
    with pytest.raises(StageError, match=rf"a\.jsonl\{suffix} cannot be read"):
        read(JsonLines(paths=[str(path)]))


def test_frames_one_after_the_other_are_one_file(tmp_path: Path) -> None:
    import zstandard

    frames = [zstandard.ZstdCompressor().compress(b'{"text": "%d"}\n' % n) for n in range(3)]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    assert [c.data for c in read(JsonLines(paths=[str(tmp_path / "*")]))] == [b"0", b"1", b"2"]
