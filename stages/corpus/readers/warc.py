"""Reads web archives (WARC, ISO 28500): one document a page, its HTML as UTF-8; of WET files the text that they hold.

The archive is decompressed here, where one that is cut short is noticed, and then parsed by warcio.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from stages.base import StageError
from stages.corpus.operations.base import Drop
from stages.corpus.readers.base import Candidate, Part, too_long, usable
from stages.corpus.readers.charset import to_utf8
from stages.corpus.readers.places import FilePart, FileReader, compressed, opened

PIECE_BYTES = 1 << 20
PAGES = ("text/html", "application/xhtml+xml")
_CHARSET = re.compile(r"charset\s*=\s*\"?([\w.:-]{1,40})", re.IGNORECASE)


class Warc(FileReader):
    """Web archives: pages that were answered with status 200, and extracted texts."""

    kind: Literal["warc"] = "warc"

    def suffixes(self) -> tuple[str, ...]:
        return compressed(".warc", ".wet")

    def read(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        from warcio.archiveiterator import ArchiveIterator

        assert isinstance(part, FilePart)
        with opened(part) as stream:
            records = iter(ArchiveIterator(stream))
            place = -1
            while True:
                try:
                    record = next(records, None)
                    if record is None:
                        break
                    place += 1
                    if not record.rec_type:
                        raise ValueError("it has no WARC-Type")
                    if record.rec_type not in ("response", "conversion"):
                        continue
                    content = record.content_stream()
                    data = content.read(max_bytes + 1)  # one more tells whether there is more
                    size = len(data)
                    while len(data) > max_bytes and (rest := content.read(PIECE_BYTES)):
                        size += len(rest)
                    missing = getattr(record.raw_stream, "limit", 1) != 0
                except (OSError, EOFError):
                    raise  # of our own stream: told with the file's name
                except Exception as error:  # warcio meets garbage with whatever breaks first
                    raise StageError(f"{part.url} is not a readable WARC file: record {place + 1}: {error}") from None
                if missing:
                    raise StageError(f"{part.url} is cut short in its record {place}")
                yield _candidate(part, place, record, data, size, max_bytes)
            while stream.read(PIECE_BYTES):  # for warcio, what is cut short just ends; our own stream tells
                pass


def _candidate(part: FilePart, place: int, record: Any, data: bytes, size: int, max_bytes: int) -> Candidate:
    url = usable((record.rec_headers.get_header("WARC-Target-URI") or "").strip("<>"))

    def refused(drop: Drop, size: int) -> Candidate:
        return Candidate(b"", part.name, place, url=url, refused=drop, refused_bytes=size)

    if len(data) > max_bytes:
        return refused(too_long(size, max_bytes), size)
    if record.rec_type == "conversion":
        return Candidate(data, part.name, place, url=url)
    headers = record.http_headers
    status = headers.get_statuscode() if headers else ""
    if status != "200":
        return refused(Drop("http_status", usable(status), "200"), len(data))
    kind = headers.get_header("Content-Type") or ""
    if kind.partition(";")[0].strip().lower() not in PAGES:
        return refused(Drop("not_a_page", usable(kind), " ".join(PAGES)), len(data))
    charset = _CHARSET.search(kind)
    return Candidate(to_utf8(data, charset[1] if charset else ""), part.name, place, url=url)
