"""Reads text files: one document per file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Literal

from stages.corpus.readers.character_sets import UTF8, EncodingLabel, utf8_stream
from stages.corpus.readers.file_systems import FilePart, FileReader, compressed, opened
from stages.corpus.readers.reader import Candidate, Part, too_long


class Text(FileReader):
    """Whole files, unchanged but for their encoding."""

    kind: Literal["text"] = "text"
    encoding: EncodingLabel = UTF8  # a byte order mark in a file has precedence
    endings: tuple[str, ...] = (".txt", ".md", ".rst")  # suffixes of text files; each also with .gz and .zst

    def suffixes(self) -> tuple[str, ...]:
        return compressed(*self.endings)

    def read(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        assert isinstance(part, FilePart)
        with opened(part) as stream:
            data, size = whole(utf8_stream(stream, self.encoding), max_bytes)
        refused = None if data is not None else too_long(size, max_bytes)
        yield Candidate(data or b"", part.name, refused=refused, refused_bytes=size)


def whole(stream: io.BufferedReader[Any], max_bytes: int) -> tuple[bytes | None, int]:
    """The bytes of a stream, or None if there are more than `max_bytes`; and their number."""
    data = stream.read(max_bytes + 1)
    if len(data) <= max_bytes:
        return data, len(data)
    size = len(data)
    while piece := stream.read(1 << 20):
        size += len(piece)
    return None, size
