"""Reads web archives (WARC, ISO 28500): one document per page, its HTML as UTF-8; from WET files, the extracted text.

The archive is decompressed here, which detects truncation, and then parsed by warcio.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from stages.base import StageError
from stages.corpus.operations.operation import Drop
from stages.corpus.readers.content_encodings import Read, content
from stages.corpus.readers.file_systems import FilePart, FileReader, compressed, opened
from stages.corpus.readers.reader import Candidate, Part, too_long, usable
from stages.corpus.readers.web_pages import utf8_page

PIECE_BYTES = 1 << 20
PAGES = ("text/html", "application/xhtml+xml")


class Warc(FileReader):
    """Web archives: pages that were served with status 200, and extracted texts."""

    version: ClassVar[str] = "2"

    kind: Literal["warc"] = "warc"

    def suffixes(self) -> tuple[str, ...]:
        return compressed(".warc", ".wet")

    def read(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        from warcio.archiveiterator import ArchiveIterator

        assert isinstance(part, FilePart)
        with opened(part) as stream:
            records = iter(ArchiveIterator(stream))
            position = -1
            while True:
                try:
                    record = next(records, None)
                    if record is None:
                        break
                    position += 1
                    if not record.rec_type:
                        raise ValueError("it has no WARC-Type")
                    if record.rec_type not in ("response", "conversion"):
                        continue
                    found = content(*_sent(record), max_bytes)
                    while record.raw_stream.read(PIECE_BYTES):  # after the last chunk
                        pass
                    missing = getattr(record.raw_stream, "limit", 1) != 0
                except (OSError, EOFError):
                    raise  # of `opened`, which names the file
                except Exception as error:  # warcio raises many types for damaged input
                    raise StageError(
                        f"{part.url} is not a readable WARC file: record {position + 1}: {error}"
                    ) from None
                if missing:
                    raise StageError(f"{part.url} is truncated in its record {position}")
                yield _candidate(part, position, record, found, max_bytes)
            while stream.read(PIECE_BYTES):  # warcio does not report truncation; `opened` does
                pass


def _sent(record: Any) -> tuple[Read, str]:
    """A function that reads the body of a record, without chunks, and the content encoding of the body."""
    from warcio.bufferedreaders import ChunkedDataReader

    headers = record.http_headers
    if not headers:
        return record.raw_stream.read, ""
    chunked = (headers.get_header("Transfer-Encoding") or "").strip().lower() == "chunked"
    body = ChunkedDataReader(record.raw_stream) if chunked else record.raw_stream
    return _whole_pieces(body.read), headers.get_header("Content-Encoding") or ""


def _whole_pieces(read: Read) -> Read:
    """Make `read` return the requested length: it returns one chunk at a time."""

    def pieces(length: int) -> bytes:
        found: list[bytes] = []
        while length > 0 and (piece := read(length)):
            found.append(piece)
            length -= len(piece)
        return b"".join(found)

    return pieces


def _candidate(
    part: FilePart, position: int, record: Any, found: tuple[bytes | Drop, int], max_bytes: int
) -> Candidate:
    url = usable((record.rec_headers.get_header("WARC-Target-URI") or "").strip("<>"))

    def refused(drop: Drop, size: int) -> Candidate:
        return Candidate(b"", part.name, position, url=url, refused=drop, refused_bytes=size)

    data, size = found
    if not isinstance(data, Drop) and len(data) > max_bytes:
        return refused(too_long(size, max_bytes), size)
    if record.rec_type == "conversion" and not isinstance(data, Drop):
        return Candidate(data, part.name, position, url=url)
    headers = record.http_headers
    status = headers.get_statuscode() if headers else ""
    if status != "200":
        return refused(Drop("http_status", usable(status), "200"), size)
    kind = headers.get_header("Content-Type") or ""
    if kind.partition(";")[0].strip().lower() not in PAGES:
        return refused(Drop("not_a_page", usable(kind), " ".join(PAGES)), size)
    if isinstance(data, Drop):
        return refused(data, size)
    return Candidate(utf8_page(data, kind, url), part.name, position, url=url)
