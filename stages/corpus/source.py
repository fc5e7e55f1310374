"""What a reader is: external content in parts, each a stream of candidates for the corpus.

A part is one file. Parts are listed in a fixed order that does not depend on the file system's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from stages.base import External

Part = TypeVar("Part")

TOO_LONG, UNREADABLE = "too_long", "unreadable"


@dataclass(frozen=True)
class Candidate:
    """A text that a reader found, as bytes, or the reason why there is none (then `data` is empty)."""

    data: bytes
    source: str
    path: str
    package: str = ""
    license: str = "unknown"
    language: str = ""
    row: int = 0  # its place in the part, where a part holds several
    refused: str | None = None  # the reason to drop it
    refused_bytes: int = 0  # what is dropped with it

    @property
    def size(self) -> int:
        """Bytes: what the manifest counts as read."""
        return self.refused_bytes if self.refused else len(self.data)


class Source(External, Generic[Part]):
    """A reader and what it reads."""

    def parts(self) -> list[Part]:
        """What there is to read. Raises StageError if that is nothing, or something that this reader can't read."""
        raise NotImplementedError

    def read(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        """The texts of a part. Those longer than `max_bytes` are refused without being held in memory.

        Raises StageError if the part is not of the kind that it should be.
        """
        raise NotImplementedError


def digest_of(value: object) -> str:
    """SHA-256 of a JSON value in canonical form, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
