"""Reads JSON Lines: one document per line. A large uncompressed file is read in ranges of bytes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

from stages.corpus.operations.operation import Drop
from stages.corpus.readers.compression import compression_of
from stages.corpus.readers.file_systems import FilePart, compressed, opened
from stages.corpus.readers.reader import Candidate, Part, too_long
from stages.corpus.readers.records import NOT_A_RECORD, RecordReader, refused

SUFFIXES = compressed(".jsonl", ".json", ".ndjson")
ESCAPED_BYTES = 6  # of JSON for one byte of text, at most: "\\u0000"
OTHER_FIELDS_BYTES = 64 << 10


class JsonLines(RecordReader):
    """Lines, each an object with the text in `text_field`. A line that is not such an object is dropped and counted."""

    kind: Literal["jsonl"] = "jsonl"

    def suffixes(self) -> tuple[str, ...]:
        return SUFFIXES

    def split(self, part: Part, size: int) -> list[Part]:
        if part.size <= size or compression_of(part.name):
            return [part]
        bounds = [*range(0, part.size - size // 2, size), part.size]
        ranges = itertools.pairwise(bounds)
        return [replace(part, size=stop - start, start=start, stop=stop) for start, stop in ranges]

    def records(self, part: FilePart, max_bytes: int) -> Iterator[Candidate]:
        limit = max_bytes * ESCAPED_BYTES + OTHER_FIELDS_BYTES
        with opened(part) as stream:
            position = part.start
            if position:
                stream.seek(position - 1)  # a line belongs to the range of its first byte
                position += _rest_of_line(stream.readline, limit, part.stop and part.stop - position) - 1
            while (part.stop is None or position < part.stop) and (line := stream.readline(limit)):
                size = len(line)
                if size == limit and not line.endswith(b"\n"):
                    size += _rest_of_line(stream.readline, limit)  # a line that is too long is counted, not kept
                    yield refused(part, position, too_long(size, max_bytes), size)
                elif line.strip():
                    yield self._parsed(part, position, line, max_bytes)
                position += size

    def _parsed(self, part: FilePart, position: int, line: bytes, max_bytes: int) -> Candidate:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return refused(part, position, Drop(NOT_A_RECORD, "", "JSON"), len(line))
        return self.candidate(part, position, record, len(line), max_bytes)


def _rest_of_line(readline: Callable[[int], bytes], limit: int, enough: int | None = None) -> int:
    """Read to the end of a line in bounded pieces, or past `enough` bytes; returns the number of bytes."""
    size = 0
    while (enough is None or size <= enough) and (piece := readline(limit)):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size
