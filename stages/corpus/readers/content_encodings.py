"""Decodes the content of a web page from its HTTP content encoding (RFC 9110, section 8.4)."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable
from typing import Any

from stages.corpus.operations.operation import Drop
from stages.corpus.readers.reader import usable

PIECE_BYTES = 1 << 20
EXPANSION = 1100  # more than gzip can; of a page that zstd or brotli expand further, no more bytes are counted
RULE = "content_encoding"
ARROW_CODECS = {"gzip": "gzip", "x-gzip": "gzip", "br": "brotli", "zstd": "zstd"}
AS_IT_IS = ("", "identity", "none")

Read = Callable[[int], bytes]  # given a number of bytes: up to that many; empty at the end


def content(read: Read, encoding: str, max_bytes: int) -> tuple[bytes | Drop, int]:
    """Up to `max_bytes` + 1 bytes of a page, or why it cannot be decoded; and the number of its bytes.

    Many crawlers decode the content and keep the header, so content that starts like a page is taken unchanged.
    """
    encoding = encoding.strip().lower()
    sent = read(max_bytes + 1)  # one more byte shows whether the page is too long
    if encoding in AS_IT_IS or not sent or sent.lstrip()[:1] == b"<":
        return sent, len(sent) + _rest(read)
    if len(sent) > max_bytes:
        return sent, len(sent) + _rest(read)
    try:
        decoded = _decoder(encoding, sent)
        if decoded is None:
            return Drop(RULE, usable(encoding), ", ".join((*ARROW_CODECS, "deflate"))), len(sent)
        data = decoded(max_bytes + 1)
        return data, len(data) + _rest(decoded, EXPANSION * len(sent))
    except (OSError, ValueError, zlib.error):
        return Drop(RULE, f"not {encoding}", encoding), len(sent)


def _rest(read: Read, limit: float = math.inf) -> int:
    """Read to the end, or past `limit` bytes; returns the number of bytes."""
    size = 0
    while size <= limit and (piece := read(PIECE_BYTES)):
        size += len(piece)
    return size


def _decoder(encoding: str, sent: bytes) -> Read | None:
    """A function that reads decoded content; None for an unknown encoding. It raises OSError for damaged content."""
    if codec := ARROW_CODECS.get(encoding):
        import pyarrow as pa

        read: Read = pa.CompressedInputStream(pa.BufferReader(sent), codec).read
        return read
    return io.BufferedReader(_Deflated(sent)).read if encoding == "deflate" else None


class _Deflated(io.RawIOBase):
    """Deflate with a zlib header, as in the standard, or without one, as many servers send it."""

    def __init__(self, sent: bytes) -> None:
        has_header = len(sent) > 1 and sent[0] & 15 == 8 and (sent[0] << 8 | sent[1]) % 31 == 0
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        self._sent = sent

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._inflate.decompress(self._sent, len(buffer))
        self._sent = self._inflate.unconsumed_tail
        if not data and not self._inflate.eof:
            raise OSError("truncated")
        buffer[: len(data)] = data
        return len(data)
