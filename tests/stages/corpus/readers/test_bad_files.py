"""`bad_files: drop`: what cannot be read is named in the ledger, and all the rest is read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from stages.base import StageError
from stages.corpus.readers.file_systems import BAD_FILE, FileReader
from stages.corpus.readers.files import Files
from stages.corpus.readers.parquet import Parquet
from stages.corpus.readers.reader import Candidate
from stages.corpus.readers.text_files import Text
from stages.corpus.readers.warc import DAMAGED, Warc
from tests.stages.corpus.examples import all_documents, ingest, prose, source, write_lines
from tests.stages.corpus.readers.test_trees import record

PAGES = [record(f"http://a.org/{number}", f"<p>page {number}</p>".encode()) for number in range(4)]


def read(reader: FileReader, max_bytes: int = 10_000) -> list[Candidate]:
    return [candidate for part in reader.parts() for candidate in reader.candidates(part, max_bytes)]


def texts(found: list[Candidate]) -> list[bytes]:
    return [candidate.data for candidate in found if candidate.refused is None]


def refusals(found: list[Candidate]) -> list[tuple[str, str]]:
    return [(each.path, each.refused.rule) for each in found if each.refused is not None]


def packed(suffix: str, data: bytes) -> bytes:
    if suffix == ".zst":
        return bytes(zstandard.ZstdCompressor().compress(data))
    if suffix == ".lz4":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "lz4") as out:
            out.write(data)
        return bytes(sink.getvalue().to_pybytes())
    compress: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    return compress[suffix](data)


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz", ".lz4"])
def test_every_compression_is_read_and_a_truncated_file_is_dropped_by_name(tmp_path: Path, suffix: str) -> None:
    data = b"".join(b'{"text": "%d %s"}\n' % (n, os.urandom(40).hex().encode()) for n in range(20_000))
    whole = packed(suffix, data)
    (tmp_path / f"A.JSONL{suffix.upper()}").write_bytes(whole)
    reader = Files(paths=[str(tmp_path / "*")])
    assert len(texts(read(reader))) == 20_000
    for name, damaged in (("b", whole[: len(whole) // 2]), ("c", b""), ("d", os.urandom(200))):
        (tmp_path / f"{name}.jsonl{suffix}").write_bytes(damaged)
        said = rf"{name}\.jsonl\{suffix} cannot be read as \{suffix}.*[^.]; to leave .* set reader.bad_files to drop"
        with pytest.raises(StageError, match=said):
            read(Files(paths=[str(tmp_path / f"{name}*")]))
    found = read(Files(paths=[str(tmp_path / "*")], bad_files="drop"))
    assert len(texts(found)) >= 20_000  # what was read of b before its end is kept
    assert refusals(found) == [(f"{name}.jsonl{suffix}", BAD_FILE) for name in "bcd"]


def null_column(path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([None, None], pa.string())}), path)


def broken_group(path: Path) -> None:
    pq.write_table(pa.table({"text": [f"row {n} of a table" * 20 for n in range(2000)]}), path, row_group_size=200)
    data = path.read_bytes()
    path.write_bytes(data[:1000] + bytes(byte ^ 255 for byte in data[1000:1100]) + data[1100:])


@pytest.mark.parametrize(
    "make",
    [
        null_column,
        broken_group,
        lambda path: path.write_bytes(b"PAR1"),
        lambda path: pq.write_table(pa.table({"other": [1]}), path),
    ],
)
@pytest.mark.parametrize("range_bytes", [0, 400])
def test_a_bad_parquet_file_is_dropped_by_name(tmp_path: Path, make: Callable[[Path], Any], range_bytes: int) -> None:
    pq.write_table(pa.table({"text": ["one", "two"]}), tmp_path / "a.parquet")
    make(tmp_path / "b.parquet")
    with pytest.raises(StageError, match=r"b\.parquet"):
        read(Parquet(paths=[str(tmp_path / "*.parquet")]))
    reader = Parquet(paths=[str(tmp_path / "*.parquet")], bad_files="drop")
    parts = [piece for part in reader.parts() for piece in (reader.split(part, range_bytes) if range_bytes else [part])]
    found = [candidate for part in parts for candidate in reader.candidates(part, 10_000)]
    assert texts(found)[:2] == [b"one", b"two"]
    assert ("b.parquet", BAD_FILE) in refusals(found) or range_bytes  # a range of nulls alone says nothing of the file


def test_what_cannot_be_opened_is_dropped_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
    reader = Text(paths=[str(tmp_path / "*.txt")], bad_files="drop")
    parts = reader.parts()
    (tmp_path / "b.txt").unlink()

    class Guarded(io.FileIO):
        def __init__(self, path: str) -> None:
            if path.endswith("c.txt"):
                raise PermissionError(13, "Permission denied")
            super().__init__(path)

    monkeypatch.setattr("stages.corpus.readers.file_systems.io.FileIO", Guarded)
    found = [candidate for part in parts for candidate in reader.candidates(part, 100)]
    assert texts(found) == [b"text a"]
    values = [str(each.refused.value) for each in found if each.refused is not None]
    assert "no longer exists" in values[0]
    assert "Permission denied" in values[1]

    def digest_file(path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    assert reader.digest(digest_file) != reader.digest(lambda path: "x")
    with pytest.raises(PermissionError):
        Text(paths=[str(tmp_path / "*.txt")]).digest(digest_file)


def test_a_file_that_changes_is_never_dropped_quietly(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    reader = Text(paths=[str(tmp_path / "a.txt")], bad_files="drop")
    (part,) = reader.parts()
    (tmp_path / "a.txt").write_text("newer")
    os.utime(tmp_path / "a.txt", ns=(1, 1))
    with pytest.raises(StageError, match="was changed after the step began"):
        list(reader.candidates(part, 100))


def test_a_damaged_archive_of_files_is_dropped_by_name(tmp_path: Path) -> None:
    for name in "ab":
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("in.jsonl", f'{{"text": "{name}"}}\n')
    (tmp_path / "b.zip").write_bytes((tmp_path / "b.zip").read_bytes()[:40])
    pattern = f"zip://*.jsonl::{tmp_path}/*.zip"
    with pytest.raises(StageError, match=r"b\.zip: it is not a readable archive.*set reader\.bad_files to drop"):
        read(Files(paths=[pattern]))
    found = read(Files(paths=[pattern], bad_files="drop"))
    assert (texts(found), refusals(found)) == ([b"a"], [("b.zip", BAD_FILE)])


def long_by_fifty(record: bytes) -> bytes:
    before, found, rest = record.partition(b"Content-Length: ")
    length, end, body = rest.partition(b"\r\n")
    return before + found + str(int(length) + 50).encode() + end + body


def short_by_ten(record: bytes) -> bytes:
    before, found, rest = record.partition(b"Content-Length: ")
    length, end, body = rest.partition(b"\r\n")
    return before + found + str(int(length) - 10).encode() + end + body


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "long": long_by_fifty,
    "short": short_by_ten,
    "no length": lambda record: record.replace(b"Content-Length", b"Content-Width", 1),
    "letters": lambda record: record.replace(b"Content-Length: ", b"Content-Length: x", 1),
    "no type": lambda record: record.replace(b"WARC-Type", b"WARC-Tope", 1),
    "no version": lambda record: record.replace(b"WARC/1.0", b"WORC/1.0", 1),
    "no status line": lambda record: record.replace(b"HTTP/1.1 200 OK", b"nothing", 1),
    "long head": lambda record: record.replace(b"WARC-Type", b"X: " + b"y" * 300_000 + b"\r\nWARC-Type", 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("how", ["members", "one member", "plain", "zst"])
@pytest.mark.parametrize("which", [0, 1, 3])
def test_a_damaged_record_costs_no_other_one(tmp_path: Path, damage: str, how: str, which: int) -> None:
    records = [DAMAGES[damage](record) if number == which else record for number, record in enumerate(PAGES)]
    data, name = {
        "members": (b"".join(map(gzip.compress, records)), "a.warc.gz"),
        "one member": (gzip.compress(b"".join(records)), "a.warc.gz"),
        "plain": (b"".join(records), "a.warc"),
        "zst": (zstandard.ZstdCompressor().compress(b"".join(records)), "a.warc.zst"),
    }[how]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(StageError):
        read(Warc(paths=[str(tmp_path / name)]))
    found = read(Warc(paths=[str(tmp_path / name)], bad_files="drop"))
    expected = [number for number in range(len(PAGES)) if number != which]
    if damage == "long" and (
        how == "zst" or (how == "one member" and which)
    ):  # it takes the beginning of the next one with it
        expected = [number for number in expected if number != which + 1]
    assert texts(found) == [b"<p>page %d</p>" % number for number in expected]
    assert [rule for _, rule in refusals(found)] == [DAMAGED]
    assert len({each.position for each in found}) == len(found)


@pytest.mark.parametrize("between", [b"garbage", b"\x1f\x8b\x08 like a member", b"x" * 3_000_000])
def test_what_is_between_members_is_skipped(tmp_path: Path, between: bytes) -> None:
    first, second, *more = map(gzip.compress, PAGES)
    (tmp_path / "a.warc.gz").write_bytes(first + between + second + b"".join(more))
    found = read(Warc(paths=[str(tmp_path / "a.warc.gz")], bad_files="drop"))
    assert texts(found) == [b"<p>page %d</p>" % number for number in range(4)]
    assert [rule for _, rule in refusals(found)] == [DAMAGED]


@given(st.data())
def test_any_flipped_byte_of_a_member_costs_that_record_at_most(data: st.DataObject) -> None:
    members = list(map(gzip.compress, PAGES))
    which = data.draw(st.integers(0, 3))
    place = data.draw(st.integers(0, len(members[which]) - 1))
    flipped = bytearray(members[which])
    flipped[place] ^= data.draw(st.integers(1, 255))
    members[which] = bytes(flipped)
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"bloomline-flipped-{os.getpid()}.warc.gz"
    path.write_bytes(b"".join(members))
    try:
        found = texts(read(Warc(paths=[str(path)], bad_files="drop")))
    finally:
        path.unlink()
    assert set(found) >= {b"<p>page %d</p>" % number for number in range(4) if number != which}
    assert len(found) == len(set(found))


def test_members_that_are_not_records_are_read_as_before(tmp_path: Path) -> None:
    """Some compressors write members of a fixed size, whatever is in them."""
    whole = b"".join(PAGES)
    pieces = [whole[start : start + 100] for start in range(0, len(whole), 100)]
    (tmp_path / "a.warc.gz").write_bytes(b"".join(map(gzip.compress, pieces)))
    kept = read(Warc(paths=[str(tmp_path / "a.warc.gz")]))
    assert read(Warc(paths=[str(tmp_path / "a.warc.gz")], bad_files="drop")) == kept
    assert len(kept) == 4


def test_an_http_head_without_end_is_dropped_and_the_next_page_read(tmp_path: Path) -> None:
    endless = record("http://a.org/x", b"<p>x</p>", extra="A: b\r\n" * 60_000)
    (tmp_path / "a.warc").write_bytes(endless + PAGES[0])
    found = read(Warc(paths=[str(tmp_path / "a.warc")]))
    assert texts(found) == [b"<p>page 0</p>"]
    assert [rule for _, rule in refusals(found)] == ["http_head_too_long"]


def test_a_corpus_names_its_bad_files(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"text": prose(number)} for number in range(20)])
    (tmp_path / "b.jsonl.gz").write_bytes(b"")
    reader = {"bad_files": "drop"}
    corpus, context = ingest(tmp_path / "out", sources={"s": source(tmp_path / "*.jsonl*", reader=reader)})
    assert len(all_documents(corpus)) == 20
    (row,) = corpus.dropped(0).to_pylist()
    assert (row["path"], row["operation"], row["rule"]) == ("b.jsonl.gz", "read", BAD_FILE)
    assert "b.jsonl.gz cannot be read as .gz: it is empty" in row["value"]
    assert any("b.jsonl.gz" in note for note in context.notes)
    assert "b.jsonl.gz" in (corpus.path / "pages" / "card.html").read_text()
    with pytest.raises(StageError, match=r"every file of source s .*b\.jsonl\.gz"):
        ingest(tmp_path / "out2", sources={"s": source(tmp_path / "b*", reader=reader), "t": source(tmp_path / "a*")})
