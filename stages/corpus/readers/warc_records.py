"""The records of a web archive, one after the other, with bounded heads; on request, past damaged ones.

warcio parses the heads. The boundaries between records are checked here: what follows a record must be another one, so
a record whose Content-Length is wrong is found whichever way it is wrong.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import Any, Protocol

PIECE_BYTES = 1 << 20
READ_BYTES = 1 << 14  # of a gzip file at a time: most members are small
HEAD_BYTES = 1 << 18  # of a record, and of the HTTP response in it
GZIP_MAGIC = b"\x1f\x8b\x08"
START = b"WARC/"
BLANK_LINES = 2  # after each record
MESSAGE_CHARACTERS = 200


class Stream(Protocol):
    """What records are read from."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Record:
    """The head of a record, and its body as a stream."""

    kind: str  # WARC-Type: "response", "conversion", ...
    url: str
    http: Any  # warcio's StatusAndHeaders of an HTTP response; None without one
    body: Any  # warcio's LimitReader, after the head of the HTTP response
    http_head_bytes: int  # more than HEAD_BYTES: the head was not read completely, and `http` is None


class DamagedError(Exception):
    """A record, or what is between two records, cannot be read."""


def read_record(stream: Stream, first: bytes) -> Record:
    """The record that begins with the line `first`, after which the stream is. Raises DamagedError."""
    from warcio.limitreader import LimitReader
    from warcio.recordloader import ArcWarcRecordLoader
    from warcio.statusandheaders import StatusAndHeadersParser

    head = first + _head(stream, HEAD_BYTES - len(first))
    if len(head) >= HEAD_BYTES:
        raise DamagedError(f"its head has more than {HEAD_BYTES} bytes")
    try:
        named = StatusAndHeadersParser(ArcWarcRecordLoader.WARC_TYPES).parse(io.BytesIO(head))
        length = int(named.get_header("Content-Length") or "")
    except Exception as error:  # warcio raises many types for damaged input
        raise DamagedError(_message(error)) from None
    kind, url = named.get_header("WARC-Type"), (named.get_header("WARC-Target-URI") or "").strip("<>")
    if not kind or length < 0:
        raise DamagedError("it has no WARC-Type" if not kind else f"its Content-Length is {length}")
    body = LimitReader(stream, length)
    if kind != "response" or not length or not url.startswith(("http:", "https:")):
        return Record(kind, url, None, body, 0)
    head = _head(body, HEAD_BYTES)
    if len(head) >= HEAD_BYTES:
        return Record(kind, url, None, body, len(head))
    try:
        http = StatusAndHeadersParser(ArcWarcRecordLoader.HTTP_TYPES).parse(io.BytesIO(head))
    except Exception as error:
        raise DamagedError(_message(error) or "it has no HTTP response") from None
    return Record(kind, url, http, body, len(head))


def end_record(record: Record, archive: PlainArchive | GzipArchive) -> bytes:
    """Read what is left of the body of a record and the two empty lines after it; returns a line that is none.

    Raises DamagedError if the stream ends before the end of the record, or the errors of reading.
    """
    while record.body.read(PIECE_BYTES):
        pass
    if record.body.limit:
        raise DamagedError("it is truncated")
    for _ in range(BLANK_LINES):
        line = archive.readline(HEAD_BYTES)
        if line.strip() or not line:
            return line
    archive.settle()
    return b""


def start_of_record(stream: Stream, line: bytes = b"") -> bytes:
    """The first line of the next record; empty at the end. `line`: what has been read already.

    Raises DamagedError if something else is there.
    """
    while not line.strip():
        if not (line := stream.readline(HEAD_BYTES)):
            return b""
    if not line.startswith(START):
        raise DamagedError(f"expected the beginning of a record, found {line[:40]!r}")
    return line


def _head(stream: Any, limit: int) -> bytes:
    """The lines up to an empty one; `limit` bytes if there are that many or more."""
    lines: list[bytes] = []
    size = 0
    while size < limit and (line := stream.readline(limit - size)):
        lines.append(line)
        size += len(line)
        if not line.strip():
            break
    return b"".join(lines)


def _message(error: Exception) -> str:
    return " ".join(str(error).split())[:MESSAGE_CHARACTERS]


# ---------------------------------------------------------------------------------------------------------------
# Going on after damage

Place = tuple[int, int]  # of a record: where its gzip member begins (0 without gzip), and the bytes before it in there


class PlainArchive:
    """An archive in one stream. After damage it continues at the next line that begins a record."""

    def __init__(self, stream: io.BufferedReader[Any]) -> None:
        self._stream, self._rewinds = stream, isinstance(stream.raw, io.FileIO)
        self.read, self.readline = stream.read, stream.readline

    def place(self, before: int) -> Place:
        """The place that is `before` bytes before the next one to be read."""
        return (0, self._stream.tell() - before) if self._rewinds else (0, 0)

    def is_between_members(self) -> bool:
        return False

    def settle(self) -> None:
        pass

    def resume(self, damaged: Place) -> bytes:
        """Move on to a record after the one at `damaged`; returns its first line, empty at the end."""
        if self._rewinds:
            self._stream.seek(damaged[1])
            self._stream.readline()
        return _skip_lines(self)


class GzipArchive:
    """An archive whose records are gzip members of their own, or not. Reading raises EOFError or zlib.error.

    After damage it continues at the next member that begins a record; within a member of several records, at a line.
    """

    def __init__(self, file: io.BufferedReader[Any]) -> None:
        self._file = file
        self._start_member()

    def _start_member(self) -> None:
        self._begin, self._before = self._file.tell(), 0
        self._inflate: Any = None  # until the first byte of the member is read
        self._data, self._used = b"", 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, fewer at the end only."""
        found = []
        while size and (self._used < len(self._data) or self._fill()):
            found.append(self._data[self._used : self._used + size])
            self._used += len(found[-1])
            size -= len(found[-1])
        return b"".join(found)

    def readline(self, size: int) -> bytes:
        """A line, or the first `size` bytes of it."""
        found = []
        while size and (self._used < len(self._data) or self._fill()):
            end = self._data.find(b"\n", self._used, self._used + size) + 1
            found.append(self._data[self._used : end or self._used + size])
            self._used += len(found[-1])
            size -= len(found[-1])
            if end:
                break
        return b"".join(found)

    def settle(self) -> None:
        """Check the sum at the end of the member if nothing else is left of it."""
        if self._used == len(self._data) and self._inflate is not None:
            self._fill_from_member()

    def _fill(self) -> bool:
        """Decompress more of the current member, or of the next one; False at the end of the file."""
        while not self._fill_from_member():
            if self._inflate is None:
                return False
            self._file.seek(-len(self._inflate.unused_data), io.SEEK_CUR)
            self._start_member()
        return True

    def _fill_from_member(self) -> bool:
        """Decompress more of the current member; False at its end, or if the file has no further one."""
        self._before += len(self._data)
        self._data, self._used = b"", 0
        while not self._data and not (self._inflate and self._inflate.eof):
            pending = self._inflate.unconsumed_tail if self._inflate else b""
            sent = pending or self._file.read1(READ_BYTES)
            if not sent:
                if self._inflate:
                    raise EOFError("it is truncated")
                return False
            inflate = self._inflate or zlib.decompressobj(zlib.MAX_WBITS | 16)
            self._data = inflate.decompress(sent, PIECE_BYTES)
            self._inflate = inflate
        return bool(self._data)

    def place(self, before: int) -> Place:
        """The place that is `before` bytes before the next one to be read."""
        return self._begin, self._before + self._used - before

    def is_between_members(self) -> bool:
        return self._inflate is None

    def resume(self, damaged: Place) -> bytes:
        """Move on to a record after the one at `damaged`; returns its first line, empty at the end."""
        begin, before = damaged
        within = before > 0 and begin == self._begin  # a member of several records
        if not within:
            self._file.seek(begin + 1)
            if not _skip_to_member(self._file) and not self.is_between_members():
                self._file.seek(begin)
                within = True
            self._start_member()
            if within:
                self.readline(HEAD_BYTES)
        try:
            return _skip_lines(self)
        except (EOFError, zlib.error):
            self._file.seek(self._begin + 1)
            found = _skip_to_member(self._file)
            self._start_member()
            return self.readline(HEAD_BYTES) if found else b""


def _skip_lines(archive: PlainArchive | GzipArchive) -> bytes:
    """Skip to the next line that begins a record; returns this line, empty at the end."""
    at_start = True
    while line := archive.readline(1 << 16):
        if at_start and line.startswith(START):
            return line
        at_start = line.endswith(b"\n")
    return b""


def _skip_to_member(file: io.BufferedReader[Any]) -> bool:
    """Move to the next gzip member that begins with a record; at the end of the file (False) there is none."""
    kept = b""
    while piece := file.read(PIECE_BYTES):
        data, end = kept + piece, file.tell()
        found = -1
        while (found := data.find(GZIP_MAGIC, found + 1)) >= 0:
            file.seek(end - len(data) + found)
            begins = _begins_with_record(file)
            file.seek(end - len(data) + found if begins else end)
            if begins:
                return True
        kept = data[1 - len(GZIP_MAGIC) :]
    return False


def _begins_with_record(file: io.BufferedReader[Any]) -> bool:
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(file.read(1 << 12), 64).startswith(START)
    except zlib.error:
        return False
