"""The base class of readers: external content in parts, each read as a stream of candidates for the corpus.

Nothing read is trusted. A record that is not a document becomes a candidate with the reason. A file that has another
format or is truncated raises StageError. Memory is bounded by the longest document that is allowed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import model_validator

from stages.base import External
from stages.corpus.declared_name import check_declared_name
from stages.corpus.operations.operation import Drop
from stages.registry import code_identity, package_of

LABEL_LIMIT = 1024  # characters of a label from content


@dataclass(frozen=True)
class Part:
    """A file that a reader reads, or a range of one. Plain values: it is sent to another process."""

    name: str  # does not depend on the folder or host
    size: int  # bytes as stored
    start: int = 0  # of a range, in a unit that the reader chooses
    stop: int | None = None  # None: to the end


@dataclass(frozen=True)
class Candidate:
    """A text as bytes, or the reason why there is none (then `data` is empty).

    An empty label stands for the label of the source.
    """

    data: bytes
    path: str
    position: int = 0  # within `path`, which may hold several documents: a row, a byte
    url: str = ""
    package: str = ""
    license: str = ""
    language: str = ""
    refused: Drop | None = None
    refused_bytes: int = 0  # bytes that are dropped with it
    unusable: tuple[str, ...] = ()  # labels that its record has, or should have, but not as a short printable value

    @property
    def size(self) -> int:
        """The bytes that the manifest counts as read."""
        return self.refused_bytes if self.refused else len(self.data)


class Reader(External):
    """Subclasses add `kind: Literal["name"] = "name"` and their fields."""

    kind: str

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        check_declared_name(cls, "kind")
        return value

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        content = self.digest_content(digest_file)
        return content if package_of(type(self)) is None else digest_of([content, code_identity(type(self))])

    def digest_content(self, digest_file: Callable[[Path], str]) -> str:
        """The digest of the content and of the fields that decide which texts are read from it.

        `digest` adds the identity of the code for readers of users' packages.
        """
        raise NotImplementedError

    def parts(self) -> Sequence[Part]:
        """What to read, in an order that does not depend on folder or host.

        Raises StageError if there is nothing, or something that this reader cannot read.
        """
        raise NotImplementedError

    def split(self, part: Part, size: int) -> list[Part]:
        """Divide a part into ranges of about `size` stored bytes, if it can be read from the middle."""
        return [part]

    def read(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        """The texts of a part, in order. Texts longer than `max_bytes` are refused without being held in memory.

        Raises StageError if the part does not have the expected format.
        """
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """The fields that decide what is read from given files, for `digest`: those that differ from their defaults."""
        return self.model_dump(mode="json", exclude={"paths"}, exclude_defaults=True) | {"version": self.version}


def too_long(size: int, max_bytes: int) -> Drop:
    return Drop("too_long", size, max_bytes)


def usable(label: object) -> str:
    """A label from content if it is a short printable string; empty otherwise."""
    return label if isinstance(label, str) and label.isprintable() and len(label) <= LABEL_LIMIT else ""


def label_of(value: object) -> str:
    """A scalar from content as a label: a number, a date or a truth value as text; empty if it is not `usable`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return usable(value.decode("utf-8", "replace"))
    if isinstance(value, int | float | Decimal | date) and value == value:  # NaN stands for no value
        return str(value)
    return usable(value)


def digest_of(value: object) -> str:
    """SHA-256 of a JSON value in canonical form, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
