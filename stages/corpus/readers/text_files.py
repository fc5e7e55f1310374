"""Reads files of text: one document a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from stages.corpus.readers.file_systems import FilePart, FileReader, compressed, opened
from stages.corpus.readers.reader import Candidate, Part, too_long


class Text(FileReader):
    """Whole files, taken as they are."""

    kind: Literal["text"] = "text"
    endings: tuple[str, ...] = (".txt", ".md", ".rst")  # of the names of files that are text; compressed ones too

    def suffixes(self) -> tuple[str, ...]:
        return compressed(*self.endings)

    def read(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        assert isinstance(part, FilePart)
        data, size = whole(part, max_bytes)
        refused = None if data is not None else too_long(size, max_bytes)
        yield Candidate(data or b"", part.name, refused=refused, refused_bytes=size)


def whole(part: FilePart, max_bytes: int) -> tuple[bytes | None, int]:
    """A file's bytes, decompressed, or None if there are more than `max_bytes`; and how many there are."""
    with opened(part) as stream:
        data = stream.read(max_bytes + 1)
        if len(data) <= max_bytes:
            return data, len(data)
        size = len(data)
        while piece := stream.read(1 << 20):
            size += len(piece)
        return None, size
