"""Documents for training and validation, each with where it came from and under which licence.

documents/SPLIT-NNNNN.parquet   the documents of a split (train, validation), ordered by id over all its shards
manifest.json                   what came in, what was kept, what was dropped and why, in documents and bytes
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeInt, ValidationError, model_validator

from stages.base import Artifact, ArtifactError, Config

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
MANIFEST = "manifest.json"
MANIFEST_LIMIT_BYTES = 64 << 20
BATCH_DOCUMENTS = 64


@dataclass(frozen=True)
class Document:
    """One text and its provenance. Its fields are the columns of the shards, all strings."""

    id: str  # hexadecimal; unique in the corpus, the same on every run
    text: str
    source: str  # the kind of text, as its reader names it: what evaluation reports by
    path: str  # within its package or source, "/" between the parts; never absolute
    package: str  # the distribution that holds it; empty if there is none
    license: str  # an SPDX expression where the package gives one; "unknown" otherwise
    language: str  # of the text, as its reader tells by its suffix ("python", "c", "markdown", ...); may be empty
    digest: str  # SHA-256 of the text's UTF-8 bytes, in hexadecimal


COLUMNS = tuple(field.name for field in fields(Document))


class Tally(Config):
    """A number of documents and the bytes of their texts."""

    documents: NonNegativeInt = 0
    bytes: NonNegativeInt = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(documents=self.documents + other.documents, bytes=self.bytes + other.bytes)


class Flow(Config):
    """What came in and became of it. Always `read` = `kept` + the sum of `dropped`, which maps reason to tally."""

    read: Tally = Tally()
    kept: Tally = Tally()
    dropped: Mapping[str, Tally] = {}

    @model_validator(mode="after")
    def _conserved(self) -> Flow:
        if self.read != sum(self.dropped.values(), self.kept):
            raise ValueError("documents or bytes read are not those kept plus those dropped")
        return self


class SplitFacts(Config):
    """One split: what is in it, and the documents of each shard in order."""

    size: Tally
    shards: tuple[NonNegativeInt, ...]


class Manifest(Config):
    """A corpus in numbers."""

    total: Flow
    sources: Mapping[str, Flow]
    splits: Mapping[Split, SplitFacts]
    licenses: Mapping[str, Tally]  # of what was kept

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        for name in ("read", "kept"):
            if getattr(self.total, name) != sum((getattr(flow, name) for flow in self.sources.values()), Tally()):
                raise ValueError(f"what was {name} by source does not add up to the total")
        for name, parts in (
            ("split", [split.size for split in self.splits.values()]),
            ("licence", list(self.licenses.values())),
        ):
            if sum(parts, Tally()) != self.total.kept:
                raise ValueError(f"what was kept by {name} does not add up to the total")
        return self


@dataclass(frozen=True)
class Corpus(Artifact):
    """Deduplicated, filtered documents in two splits."""

    is_dataset: ClassVar[bool] = True

    @property
    def manifest(self) -> Manifest:
        path = self.path / MANIFEST
        try:
            if path.stat().st_size > MANIFEST_LIMIT_BYTES:
                raise ArtifactError(f"{path} is larger than {MANIFEST_LIMIT_BYTES} bytes: not a corpus's manifest")
            return Manifest.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise ArtifactError(f"{path} is not a corpus's manifest: {where}: {first['msg']}") from None
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None

    def documents(self, split: Split) -> Iterator[Document]:
        """The documents of a split, in the order of their ids, a few in memory at a time.

        Raises ArtifactError if a shard is missing, garbled or of another length than the manifest says.
        """
        from pyarrow import ArrowException

        for index, expected in enumerate(self.manifest.splits[split].shards):
            path = self.path / shard_name(split, index)
            found = 0
            try:
                with _open_shard(path) as shard:
                    for batch in shard.iter_batches(BATCH_DOCUMENTS, columns=list(COLUMNS)):
                        found += batch.num_rows
                        yield from (Document(**row) for row in batch.to_pylist())
            except (ArrowException, OSError) as error:
                raise ArtifactError(f"{path} is not a readable Parquet file: {error}") from None
            if found != expected:
                raise ArtifactError(f"{path} holds {found} documents, {MANIFEST} says {expected}")

    def check(self) -> None:
        """Every document read: digests are those of the texts, ids ascend, numbers are the manifest's."""
        kept: dict[str, Tally] = {}
        licenses: dict[str, Tally] = {}
        for split, facts in self.manifest.splits.items():
            size, last = Tally(), ""
            for document in self.documents(split):
                data = document.text.encode()
                if hashlib.sha256(data).hexdigest() != document.digest:
                    raise ArtifactError(f"{self.path}: the text of {document.path} has another digest than recorded")
                if document.id <= last:
                    raise ArtifactError(f"{self.path}: split {split} is not ordered by id at {document.id}")
                one, last = Tally(documents=1, bytes=len(data)), document.id
                size += one
                kept[document.source] = kept.get(document.source, Tally()) + one
                licenses[document.license] = licenses.get(document.license, Tally()) + one
            if size != facts.size:
                raise ArtifactError(f"{self.path}: split {split} holds {size!r}, {MANIFEST} says {facts.size!r}")
        recorded = {source: flow.kept for source, flow in self.manifest.sources.items() if flow.kept.documents}
        if kept != recorded or licenses != dict(self.manifest.licenses):
            raise ArtifactError(f"{self.path}: documents by source or licence are not as {MANIFEST} says")

    def describe(self) -> Mapping[str, object]:
        manifest = self.manifest
        return {
            "read": manifest.total.read.model_dump(),
            "kept": manifest.total.kept.model_dump(),
            "dropped": {reason: tally.model_dump() for reason, tally in manifest.total.dropped.items()},
            "splits": {split: facts.size.model_dump() for split, facts in manifest.splits.items()},
            "bytes by source": {source: flow.kept.bytes for source, flow in manifest.sources.items()},
            "bytes by licence": {license_: tally.bytes for license_, tally in manifest.licenses.items()},
        }


def shard_name(split: Split, index: int) -> str:
    return f"documents/{split}-{index:05d}.parquet"


def _open_shard(path: Path) -> ParquetFile:
    from pyarrow.parquet import ParquetFile

    shard = ParquetFile(path)
    names = tuple(shard.schema_arrow.names)
    if names != COLUMNS or any(str(kind) != "string" for kind in shard.schema_arrow.types):
        shard.close()
        raise ArtifactError(f"{path} has the columns {', '.join(names)}; a corpus has {', '.join(COLUMNS)}, all text")
    return shard
