"""A declared source of documents: the reader, the labels of its documents, and the operations on each of them."""

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
from stages.registry import code_identity


class Source(Config):
    """One entry of `sources`. The content that the reader reads and the operations are part of the identity."""

    reader: AnyReader
    license: str = "unknown"  # of documents without a label of their own
    language: str = ""  # likewise; stored by its code in languages.py: "pt_BR" as "pt", "cpp" as "c++"
    weight: PositiveFloat = 1.0  # of the source in a mixture, relative to its size
    rank: NonNegativeInt = 0  # of duplicates, the document from the source with the smallest rank is kept
    operations: tuple[AnyOperation, ...] = ()  # applied to every document, in this order

    def facts(self) -> SourceFacts:
        return SourceFacts(
            reader=self.reader.kind,
            rank=self.rank,
            weight=self.weight,
            operations=tuple(_identity(operation) for operation in self.operations),
            chain=self.chain(),
            markup=tuple(operation.operation for operation in self.operations if operation.removes_markup),
        )

    def chain(self) -> str:
        """The hash of the operations: their values, the identity of their code, and the content that they name."""
        return digest_of([_identity(operation) for operation in self.operations])[:16]


def _identity(value: Any) -> Any:
    """A value as JSON that is the same on every machine: content by its digest, not by its path."""
    if isinstance(value, Artifact):
        files = sorted(path for path in value.path.rglob("*") if path.is_file())
        return {"artifact": digest_of([[path.relative_to(value.path).as_posix(), sha256_of(path)] for path in files])}
    if isinstance(value, External):
        return {"external": value.digest(sha256_of)}
    if isinstance(value, BaseModel):
        fields = {name: _identity(getattr(value, name)) for name in type(value).model_fields}
        return {**fields, **code_identity(type(value))}
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
