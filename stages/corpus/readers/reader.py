"""What a reader is: external content in parts, each a stream of candidates for the corpus.

Nothing read is trusted. A record that is no document is a candidate that says why not; a file that is not what it
should be (another format, cut short) is a StageError; memory is bounded by the longest document that is allowed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stages.base import External
from stages.corpus.operations.operation import Drop

LABEL_LIMIT = 1024  # characters of a label that content may bring


@dataclass(frozen=True)
class Part:
    """A piece of what a reader reads: a file, or a range of one. Plain values: it is sent to a worker."""

    name: str  # what it is called: the same wherever it lies
    size: int  # bytes as stored
    start: int = 0  # of a range, in the reader's own unit
    stop: int | None = None  # None: to the end


@dataclass(frozen=True)
class Candidate:
    """A text that a reader found, as bytes, or the reason why there is none (then `data` is empty).

    An empty label means that the source's own counts.
    """

    data: bytes
    path: str
    place: int = 0  # in its path, where that holds several: a row, a byte
    url: str = ""
    package: str = ""
    license: str = ""
    language: str = ""
    refused: Drop | None = None
    refused_bytes: int = 0  # what is dropped with it

    @property
    def size(self) -> int:
        """Bytes: what the manifest counts as read."""
        return self.refused_bytes if self.refused else len(self.data)


class Reader(External):
    """Subclasses add `kind: Literal["name"] = "name"`, what they read, and in `digest` all that decides what comes."""

    def parts(self) -> list[Part]:
        """What there is to read, in an order that does not depend on where it lies.

        Raises StageError if that is nothing, or something that this reader can't read.
        """
        raise NotImplementedError

    def split(self, part: Part, size: int) -> list[Part]:
        """The part in ranges of about `size` stored bytes, where it can be read from the middle; else as it is."""
        return [part]

    def read(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        """The texts of a part, in their order. Those longer than `max_bytes` are refused without being held in memory.

        Raises StageError if the part is not of the kind that it should be.
        """
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """The fields that decide what comes out of given files, for `digest`: those that differ from their defaults."""
        return self.model_dump(mode="json", exclude={"paths"}, exclude_defaults=True) | {"version": self.version}


def too_long(size: int, max_bytes: int) -> Drop:
    return Drop("too_long", size, max_bytes)


def usable(label: object) -> str:
    """A label that content brings, if it is one: a short printable text. Else nothing."""
    return label if isinstance(label, str) and label.isprintable() and len(label) <= LABEL_LIMIT else ""


def digest_of(value: object) -> str:
    """SHA-256 of a JSON value in canonical form, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
