"""Reads JSON Lines: one document per line. A large uncompressed file is read in ranges of bytes.

A line may hold several objects, one after the other. A file with one JSON array, or with objects over several lines, is
refused: line by line, most of its records would be lost.
"""

from __future__ import annotations

import codecs
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

from stages.base import StageError
from stages.corpus.operations.operation import Drop
from stages.corpus.readers.character_sets import UTF8, EncodingLabel, utf8_stream
from stages.corpus.readers.file_systems import FilePart, compressed, opened
from stages.corpus.readers.reader import Candidate, Part, too_long, usable
from stages.corpus.readers.records import NOT_A_RECORD, RecordReader, refused

SUFFIXES = compressed(".jsonl", ".json", ".ndjson")
ESCAPED_BYTES = 6  # of JSON for one byte of text, at most: "\\u0000"
OTHER_FIELDS_BYTES = 64 << 10


class JsonLines(RecordReader):
    """Lines, each an object with the text in `text_field`. A line that is not such an object is dropped and counted."""

    kind: Literal["jsonl"] = "jsonl"
    encoding: EncodingLabel = UTF8  # a byte order mark in a file has precedence

    def suffixes(self) -> tuple[str, ...]:
        return SUFFIXES

    def split(self, part: Part, size: int) -> list[Part]:
        assert isinstance(part, FilePart)
        if part.size <= size or part.name.endswith((".gz", ".zst")):
            return [part]
        with opened(part) as stream:
            if utf8_stream(stream, self.encoding) is not stream:  # converted from the beginning
                return [part]
        bounds = [*range(0, part.size - size // 2, size), part.size]
        ranges = itertools.pairwise(bounds)
        return [replace(part, size=stop - start, start=start, stop=stop) for start, stop in ranges]

    def records(self, part: FilePart, max_bytes: int) -> Iterator[Candidate]:
        limit = max_bytes * ESCAPED_BYTES + OTHER_FIELDS_BYTES
        with opened(part) as stored:
            stream = stored if part.start else utf8_stream(stored, self.encoding)
            position, first = part.start, part.start == 0
            if position:
                stream.seek(position - 1)  # a line belongs to the range of its first byte
                position += _rest_of_line(stream.readline, limit, part.stop and part.stop - position) - 1
            while (part.stop is None or position < part.stop) and (line := stream.readline(limit)):
                size = len(line)
                if size == limit and not line.endswith(b"\n"):
                    size += _rest_of_line(stream.readline, limit)  # a line that is too long is counted, not kept
                    yield refused(part, position, too_long(size, max_bytes), size)
                elif line.strip():
                    _check_lines(part, position, line, first)
                    first = False
                    yield from self._parsed(part, position, line, max_bytes)
                position += size

    def _parsed(self, part: FilePart, position: int, line: bytes, max_bytes: int) -> Iterator[Candidate]:
        try:
            yield self.candidate(part, position, json.loads(line), len(line), max_bytes)
        except (ValueError, RecursionError) as error:
            objects = _objects(line)
            if not objects:
                yield refused(part, position, Drop(NOT_A_RECORD, usable(str(error)), "JSON"), len(line))
            for start, size, record in objects:
                yield self.candidate(part, position + start, record, size, max_bytes)


def _check_lines(part: FilePart, position: int, line: bytes, first: bool) -> None:
    """Raises StageError if the line, the first one of its file or not, shows JSON that is not JSON Lines."""
    content = line.removeprefix(codecs.BOM_UTF8).strip()
    if first and content.startswith(b"["):
        found, command = "a JSON array", "jq -c '.[]'"
    elif content == b"{":
        found, command = "JSON objects over several lines", "jq -c ."
    else:
        return
    raise StageError(
        f"{part.url} holds {found}, at byte {position}; expected JSON Lines, which have one object per line: convert "
        f"the file with `{command}`"
    )


def _objects(line: bytes) -> list[tuple[int, int, object]]:
    """The objects of a line that holds nothing else: the first byte, the number of bytes and the value of each."""
    decoder, position = json.JSONDecoder(), 0
    found: list[tuple[int, int, object]] = []
    try:
        text = line.removeprefix(codecs.BOM_UTF8).decode().strip()
        while position < len(text):
            record, end = decoder.raw_decode(text, position)
            if not isinstance(record, dict):
                return []
            found.append((len(text[:position].encode()), len(text[position:end].encode()), record))
            position = end + len(text[end:]) - len(text[end:].lstrip())
    except (ValueError, RecursionError):
        return []
    return found


def _rest_of_line(readline: Callable[[int], bytes], limit: int, enough: int | None = None) -> int:
    """Read to the end of a line in bounded pieces, or past `enough` bytes; returns the number of bytes."""
    size = 0
    while (enough is None or size <= enough) and (piece := readline(limit)):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size
