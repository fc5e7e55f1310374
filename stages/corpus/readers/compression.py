"""The compressions of files that readers decompress, by suffix."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import IO, Any, cast

BUFFER_BYTES = 1 << 20
XZ_MEMORY_BYTES = 256 << 20  # `xz -9` asks for 65 MB


def _arrow(codec: str) -> Callable[[IO[bytes]], Any]:
    def opened(file: IO[bytes]) -> Any:
        import pyarrow as pa

        # Unlike the libraries' own readers, Arrow's reports a truncated last frame.
        return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec)

    return opened


class _Xz(io.RawIOBase):
    """The content of an .xz file of one or more streams, with bounded memory: its header asks for up to 4 GiB."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._stream = lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            sent = b""
            if self._stream.eof:
                sent = self._stream.unused_data.lstrip(b"\0")  # zeros may be between streams
                while not sent:
                    if not (piece := self._file.read(BUFFER_BYTES)):
                        return 0
                    sent = piece.lstrip(b"\0")
                self._stream = lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES)
            elif self._stream.needs_input and not (sent := self._file.read(BUFFER_BYTES)):
                raise EOFError("it is truncated")
            if data := self._stream.decompress(sent, len(buffer)):
                buffer[: len(data)] = data
                return len(data)


_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".zst": _arrow("zstd"),
    ".bz2": bz2.BZ2File,
    ".xz": _Xz,
    ".lz4": _arrow("lz4"),
}
COMPRESSIONS = ("", *_OPENERS)
ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)  # of damaged and truncated files


def compressed(*suffixes: str) -> tuple[str, ...]:
    """Each suffix, plain and with the suffix of each supported compression."""
    return tuple(suffix + compression for suffix in suffixes for compression in COMPRESSIONS)


def compression_of(name: str) -> str:
    """The compression that the suffix of a file's name stands for, as in COMPRESSIONS; empty if there is none."""
    return next((suffix for suffix in _OPENERS if name.lower().endswith(suffix)), "")


def decompressed(file: io.BufferedReader[Any], name: str) -> io.BufferedReader[Any]:
    """The content of a file, decompressed by the suffix of its name. Reading it raises one of ERRORS.

    Raises EOFError for an empty file, which no compressor writes.
    """
    suffix = compression_of(name)
    if not suffix:
        return file
    if not file.peek(1):
        raise EOFError("it is empty")
    return io.BufferedReader(cast("io.RawIOBase", _OPENERS[suffix](file)), BUFFER_BYTES)
