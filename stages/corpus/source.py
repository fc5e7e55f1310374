"""A source, as it is declared: where its documents come from, what they are, and what is done to each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, NonNegativeInt, PositiveFloat

from stages.artifacts.manifest import SourceFacts
from stages.base import Artifact, Config, External
from stages.corpus.operations.registry import AnyOperation
from stages.corpus.readers.reader import digest_of
from stages.corpus.readers.registry import AnyReader


class Source(Config):
    """One entry of `sources`. A reader's content and the operations are part of what comes out."""

    reader: AnyReader
    license: str = "unknown"  # of documents that bring none of their own, as are the two below
    language: str = (
        ""  # a tag, as are those of documents; kept by the code of the corpus: "pt_BR" as "pt", "cpp" as "c++"
    )
    weight: PositiveFloat = 1.0  # how much of it mixing takes, relative to its size
    rank: NonNegativeInt = 0  # of documents alike the one from the source of the smallest rank stays
    operations: tuple[AnyOperation, ...] = ()  # done to every document, in this order

    def facts(self) -> SourceFacts:
        return SourceFacts(
            reader=self.reader.kind,
            rank=self.rank,
            weight=self.weight,
            operations=tuple(_identity(operation) for operation in self.operations),
            chain=self.chain(),
        )

    def chain(self) -> str:
        """The hash of the operations: their values, their versions, and the content of what they name."""
        return digest_of([_identity(operation) for operation in self.operations])[:16]


def _identity(value: Any) -> Any:
    """What a value stands for as JSON, the same on every machine: content by its digest, never by its path."""
    if isinstance(value, Artifact):
        files = sorted(path for path in value.path.rglob("*") if path.is_file())
        return {"artifact": digest_of([[path.relative_to(value.path).as_posix(), sha256_of(path)] for path in files])}
    if isinstance(value, External):
        return {"external": value.digest(sha256_of)}
    if isinstance(value, BaseModel):
        fields = {name: _identity(getattr(value, name)) for name in type(value).model_fields}
        return {**fields, "version": getattr(value, "version", "1")}
    if isinstance(value, Mapping):
        return {str(key): _identity(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, tuple | list):
        return [_identity(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
