"""Reads web archives (WARC, ISO 28500): one document per page, its HTML as UTF-8; from WET files, the extracted text.

The archive is decompressed here, which detects truncation, and then parsed by warcio.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from stages.base import StageError
from stages.corpus.operations.operation import Drop
from stages.corpus.readers.compression import ERRORS, compression_of
from stages.corpus.readers.content_encodings import Read, content
from stages.corpus.readers.file_systems import FilePart, FileReader, compressed, opened, raw, read_errors
from stages.corpus.readers.reader import Candidate, Part, too_long, usable
from stages.corpus.readers.warc_records import (
    HEAD_BYTES,
    GzipArchive,
    PlainArchive,
    Record,
    end_record,
    read_record,
    start_of_record,
)
from stages.corpus.readers.web_pages import utf8_page

DAMAGED = "damaged_record"
PAGES = ("text/html", "application/xhtml+xml")


class Warc(FileReader):
    """Web archives: pages that were served with status 200, and extracted texts."""

    version: ClassVar[str] = "2"

    kind: Literal["warc"] = "warc"

    def suffixes(self) -> tuple[str, ...]:
        return compressed(".warc", ".wet")

    def read(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        assert isinstance(part, FilePart)
        if self.bad_files == "drop" and compression_of(part.name) == ".gz":
            with read_errors(part), raw(part) as file:
                yield from self._candidates(part, GzipArchive(file), max_bytes)
        else:
            with opened(part) as stream:
                yield from self._candidates(part, PlainArchive(stream), max_bytes)

    def _candidates(self, part: FilePart, archive: PlainArchive | GzipArchive, max_bytes: int) -> Iterator[Candidate]:
        position, place = -1, (0, 0)
        first = after = b""  # the line that begins a record; the line after a record, if that is not empty
        pending: Candidate | None = None  # whole if a record, or the end, is after it
        while True:
            try:
                first = first or start_of_record(archive, after)
                if pending is not None:
                    yield pending
                    pending = None
                if not first:
                    return
                position += 1
                place = archive.place(len(first))
                record = read_record(archive, first)
                wanted = record.kind in ("response", "conversion")
                found = content(*_sent(record), max_bytes) if wanted else None
                after = end_record(record, archive)
                first = b""
                pending = _candidate(part, position, record, found, max_bytes) if found else None
                if pending is not None and not after:
                    yield pending
                    pending = None
            except Exception as error:  # warcio raises many types for damaged input
                if self.bad_files == "fail":
                    if isinstance(error, ERRORS):
                        raise  # of `opened`, which names the file
                    at = position if first else position + 1
                    raise StageError(f"{part.url} is not a readable WARC file: record {at}: {error}") from None
                if pending is not None and archive.is_between_members():
                    yield pending
                    pending, place = None, archive.place(0)
                if pending is None and not first:  # what is after a record
                    position += 1
                pending, after = None, b""
                drop = Drop(DAMAGED, usable(str(error)) or type(error).__name__, "")
                yield Candidate(b"", part.name, position, refused=drop)
                first = archive.resume(place)
                if not first:
                    return


def _sent(record: Record) -> tuple[Read, str]:
    """A function that reads the body of a record, without chunks, and the content encoding of the body."""
    from warcio.bufferedreaders import ChunkedDataReader

    headers = record.http
    if not headers:
        return record.body.read, ""
    chunked = (headers.get_header("Transfer-Encoding") or "").strip().lower() == "chunked"
    body = ChunkedDataReader(record.body) if chunked else record.body
    return _whole_pieces(body.read), headers.get_header("Content-Encoding") or ""


def _whole_pieces(read: Read) -> Read:
    """Make `read` return the requested length: it returns one chunk at a time."""

    def pieces(length: int) -> bytes:
        found = bytearray()  # a chunk may be a single byte
        while length > len(found) and (piece := read(length - len(found))):
            found += piece
        return bytes(found)

    return pieces


def _candidate(
    part: FilePart, position: int, record: Record, found: tuple[bytes | Drop, int], max_bytes: int
) -> Candidate:
    url = usable(record.url)

    def refused(drop: Drop, size: int) -> Candidate:
        return Candidate(b"", part.name, position, url=url, refused=drop, refused_bytes=size)

    data, size = found
    if record.http_head_bytes >= HEAD_BYTES:
        return refused(Drop("http_head_too_long", record.http_head_bytes, HEAD_BYTES), size)
    if not isinstance(data, Drop) and len(data) > max_bytes:
        return refused(too_long(size, max_bytes), size)
    if record.kind == "conversion" and not isinstance(data, Drop):
        return Candidate(data, part.name, position, url=url)
    headers = record.http
    status = headers.get_statuscode() if headers else ""
    if status != "200":
        return refused(Drop("http_status", usable(status), "200"), size)
    kind = headers.get_header("Content-Type") or ""
    if kind.partition(";")[0].strip().lower() not in PAGES:
        return refused(Drop("not_a_page", usable(kind), " ".join(PAGES)), size)
    if isinstance(data, Drop):
        return refused(data, size)
    return Candidate(utf8_page(data, kind, url), part.name, position, url=url)
