"""Reads JSON Lines: one document a line. A large file that is not compressed is read in ranges of bytes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from stages.corpus.operations.operation import Drop
from stages.corpus.readers.file_systems import FilePart, compressed, opened
from stages.corpus.readers.reader import Candidate, Part, too_long
from stages.corpus.readers.records import NOT_A_RECORD, RecordReader, refused

SUFFIXES = compressed(".jsonl", ".json", ".ndjson")
ESCAPED_BYTES = 6  # that one byte of text may take in JSON: "\\u0000"
OTHER_FIELDS_BYTES = 64 << 10


class JsonLines(RecordReader):
    """Lines, each an object with the text in `text_field`. A bad line is dropped and counted."""

    kind: Literal["jsonl"] = "jsonl"

    def suffixes(self) -> tuple[str, ...]:
        return SUFFIXES

    def split(self, part: Part, size: int) -> list[Part]:
        if part.size <= size or part.name.endswith((".gz", ".zst")):
            return [part]
        bounds = [*range(0, part.size - size // 2, size), part.size]
        ranges = itertools.pairwise(bounds)
        return [replace(part, size=stop - start, start=start, stop=stop) for start, stop in ranges]

    def records(self, part: FilePart, max_bytes: int) -> Iterator[Candidate]:
        limit = max_bytes * ESCAPED_BYTES + OTHER_FIELDS_BYTES
        with opened(part) as stream:
            place = part.start
            if place:
                stream.seek(place - 1)  # a line belongs to the range that its first byte is in
                place += _rest_of_line(stream.readline, limit, part.stop and part.stop - place) - 1
            while (part.stop is None or place < part.stop) and (line := stream.readline(limit)):
                size = len(line)
                if size == limit and not line.endswith(b"\n"):
                    size += _rest_of_line(stream.readline, limit)  # an endless line is counted, not kept
                    yield refused(part, place, too_long(size, max_bytes), size)
                elif line.strip():
                    yield self._parsed(part, place, line, max_bytes)
                place += size

    def _parsed(self, part: FilePart, place: int, line: bytes, max_bytes: int) -> Candidate:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return refused(part, place, Drop(NOT_A_RECORD, "", "JSON"), len(line))
        return self.candidate(part, place, record, len(line), max_bytes)


def _rest_of_line(readline: object, limit: int, enough: int | None = None) -> int:
    """Reads to the end of a line in bounded pieces, or until it is more than `enough` bytes; how many it was."""
    size = 0
    while (enough is None or size <= enough) and (piece := readline(limit)):  # type: ignore[operator]
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size
