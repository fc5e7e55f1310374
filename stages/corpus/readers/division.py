"""Divides a long text into documents while it is read, in memory for one of them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any, Literal

Divide = Literal["blank_lines", "regex", "bytes", "no"]
LONGEST = 4  # times `document_bytes`: a passage without a blank line that is longer is divided all the same


def divided(
    stream: io.BufferedIOBase | io.BufferedReader[Any],
    divide: Divide,
    document_bytes: int,
    pattern: str,
    max_bytes: int,
) -> Iterator[tuple[int, bytes]]:
    """The documents of a text in UTF-8, each with the position of its first byte. Nothing is left out.

    blank_lines   a document ends with the first blank line after `document_bytes` bytes
    bytes         a document has at most `document_bytes` bytes, and ends with a line
    regex         a document begins with each line in which `pattern` is found
    no            the text is one document

    A line, and with `regex` and `no` a document, that is longer than is good is divided as well: within a line at white
    space, or else between two characters. What is left over at the end is part of the last document where sizes decide.
    """
    by_size = divide in ("blank_lines", "bytes")
    longest = {"blank_lines": LONGEST * document_bytes, "bytes": document_bytes}.get(divide, max_bytes)
    begins = re.compile(pattern).search
    start = position = 0
    parts: list[bytes] = []
    before: tuple[int, bytes] | None = None  # a document that may get what is left over
    for line in _lines(stream, min(document_bytes, longest) if by_size else longest):
        size = position - start
        if size and (
            size + len(line) > longest
            or (divide == "blank_lines" and size >= document_bytes and not parts[-1].strip())
            or (divide == "regex" and begins(line.decode("utf-8", "replace")))
        ):
            if before:
                yield before
            before, start, parts = (start, b"".join(parts)), position, []
        parts.append(line)
        position += len(line)
    last = b"".join(parts)
    if before and by_size and 2 * len(last) < document_bytes and len(before[1]) + len(last) <= max_bytes:
        yield before[0], before[1] + last
        return
    if before:
        yield before
    yield start, last


def _lines(stream: io.BufferedIOBase | io.BufferedReader[Any], limit: int) -> Iterator[bytes]:
    """The lines of a text, those that are longer than `limit` bytes in several pieces."""
    rest = b""
    while read := stream.readline(limit - len(rest)):
        line = rest + read
        cut = len(line) if len(line) < limit or line.endswith(b"\n") else _place_to_cut(line)
        rest = line[cut:]
        yield line[:cut]
    if rest:
        yield rest


def _place_to_cut(line: bytes) -> int:
    """After the last white space, or else before the last character, which may not be whole. Never 0."""
    place = max(line.rfind(b" "), line.rfind(b"\t"), line.rfind(b"\r")) + 1
    if place > len(line) // 2:
        return place
    place = len(line) - 1
    while place > 1 and line[place] & 0xC0 == 0x80:
        place -= 1
    return place or 1
