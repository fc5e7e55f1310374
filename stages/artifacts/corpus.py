"""Documents for training and validation, each with its provenance and licence.

documents/SPLIT-NNNNN.parquet   the documents of a shard that are in a split (train, validation)
dropped/NNNNN.parquet           the ledger: every dropped document of a shard, with the rule that dropped it
samples.parquet                 a few documents of each source that were kept, and a few that each rule dropped, with
                                the beginning of their text
families.parquet                families of similar documents: which one was kept, how similar the others are to it, and
                                for some of them the beginning of the text
values.parquet                  how many documents had which value of each number that an operation compares
pages/card.md, card.html        the data card: the same information for readers
manifest.json                   documents and bytes that were read, kept and dropped

A shard holds a part of one source, in the order in which its files were read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from stages.artifacts.manifest import SPLITS, UNUSABLE, Cut, Manifest, Split, Tally
from stages.base import Artifact, ArtifactError
from stages.json_files import read_json

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

MANIFEST = "manifest.json"
MANIFEST_LIMIT_BYTES = 64 << 20
SAMPLES = "samples.parquet"
FAMILIES = "families.parquet"
VALUES = "values.parquet"
BATCH_DOCUMENTS = 64
FAMILY_ROWS = 1024  # in memory at a time
KEPT = "kept"  # the rule of samples of documents that were kept; their operation is empty
PROMPT_WORDS, PROMPT_CHARACTERS = 6, 80
LARGE_LOSS = 0.9  # the share of a source's documents or bytes above which its loss is reported as a warning


@dataclass(frozen=True)
class Document:
    """One text and its provenance. The fields are the first columns of the shards, all strings.

    More columns follow where a source keeps fields of its records, or values of its operations.
    """

    id: str  # 32 hexadecimal digits: unique in the corpus, the same in every run, uniformly distributed
    text: str
    source: str  # the name of the source in the configuration
    path: str  # relative to its source, with "/" as separator
    url: str  # where it was published; empty if unknown
    package: str  # the distribution that contains it; empty if there is none
    license: str  # an SPDX expression where the source gives one; "unknown" otherwise
    language: str  # a language code ("en", "zhs") or the name of a programming or markup language; may be empty
    operations: str  # the hash of the operations that were applied to it: `SourceFacts.chain`
    digest: str  # SHA-256 of the text's UTF-8 bytes, in hexadecimal


COLUMNS = {field.name: "string" for field in fields(Document)}
DROPPED_COLUMNS = {
    **dict.fromkeys(("id", "source", "path", "url", "package", "license", "language"), "string"),
    "bytes": "int64",  # of its text when it was dropped
    **dict.fromkeys(("operation", "rule", "value", "threshold"), "string"),
}
FAMILY_COLUMNS = {
    "family": "string",  # the id of its representative
    "rule": "string",  # the rule that found the similarity
    **dict.fromkeys(("id", "source", "path"), "string"),
    "similarity": "double",  # to the representative, which has 1
    "kept": "bool",
    "text": "string",  # the beginning of the text, of the first members of some families; otherwise empty
}
VALUE_COLUMNS = {
    **dict.fromkeys(("source", "operation", "rule"), "string"),
    **dict.fromkeys(("threshold", "value"), "double"),  # the value with two significant digits
    "fails": "bool",  # whether it is outside of the threshold, so that the document was dropped
    "documents": "int64",
}
SAMPLE_COLUMNS = {**{name: kind for name, kind in DROPPED_COLUMNS.items() if name != "bytes"}, "text": "string"}


@dataclass(frozen=True)
class Corpus(Artifact):
    """Filtered, deduplicated documents in two splits."""

    is_dataset: ClassVar[bool] = True

    @property
    def manifest(self) -> Manifest:
        """Raises ArtifactError if manifest.json is missing or is not a corpus's."""
        return read_json(self.path / MANIFEST, Manifest, "a corpus's manifest", MANIFEST_LIMIT_BYTES)

    def documents(self, split: Split, fraction: float = 1.0) -> Iterator[Document]:
        """The documents of a split, shard by shard, with only a few in memory at a time.

        fraction: the approximate share (0 to 1) of documents to return. They are those with the smallest ids, a uniform
            sample of all shards.

        Raises ArtifactError if a shard is missing, damaged or has another number of documents than the manifest says.
        """
        below = f"{int(max(fraction, 0) * 2**64):016x}" if fraction < 1 else None
        for index, shard in enumerate(self.manifest.shards):
            if expected := shard.splits.get(split, Tally()).documents:
                yield from self._shard(self.path / shard_name(split, index), expected, below)

    def dropped(self, shard: int) -> pa.Table:
        """The ledger of a shard (from 0). Raises ArtifactError as `documents` does."""
        path = self.path / dropped_name(shard)
        with _opened(path, DROPPED_COLUMNS) as file:
            table = file.read()
        if table.num_rows != (expected := self.manifest.shards[shard].dropped):
            raise ArtifactError(f"{path} holds {table.num_rows} documents, but {MANIFEST} says {expected}")
        return table

    def samples(self) -> pa.Table:
        """Some dropped documents, and some that were kept (`rule` is KEPT), with the beginning of their text.

        Raises ArtifactError if the file is damaged.
        """
        with _opened(self.path / SAMPLES, SAMPLE_COLUMNS) as file:
            return file.read()

    def families(self) -> Iterator[Mapping[str, Any]]:
        """Similar documents as rows of FAMILY_COLUMNS, family after family, the document that was kept first.

        Raises ArtifactError if the file is damaged.
        """
        with _opened(self.path / FAMILIES, FAMILY_COLUMNS) as file:
            for batch in file.iter_batches(FAMILY_ROWS):
                yield from batch.to_pylist()

    def values(self) -> pa.Table:
        """The distribution of each number that an operation compares with a threshold, as VALUE_COLUMNS.

        A document that an operation drops is not measured by later operations. Raises ArtifactError if the file is
        damaged.
        """
        with _opened(self.path / VALUES, VALUE_COLUMNS) as file:
            return file.read()

    def check(self) -> None:
        """Read every document and check that its digest is that of its text, that ids are unique, and that the numbers
        are those of the manifest."""
        import numpy as np

        manifest = self.manifest
        kept: dict[tuple[str, str, str], Tally] = {}
        ids: list[np.ndarray] = []
        for index, facts in enumerate(manifest.shards):
            for split in SPLITS:
                found, sizes = [], Tally()
                for document in self._documents_of(index, split, facts.splits.get(split, Tally())):
                    data = document.text.encode()
                    if hashlib.sha256(data).hexdigest() != document.digest:
                        raise ArtifactError(
                            f"{self.path}: the text of {document.path} does not have the recorded digest"
                        )
                    one = Tally(documents=1, bytes=len(data))
                    cell = (document.source, document.language, document.license)
                    kept[cell] = kept.get(cell, Tally()) + one
                    sizes += one
                    found.append(document.id)
                if sizes != facts.splits.get(split, Tally()):
                    raise ArtifactError(f"{self.path}: shard {index} has {sizes!r} in {split}, but {MANIFEST} differs")
                ids.append(np.array(found, "S32"))
            self.dropped(index)
        self.samples()
        self.values()
        for _ in self.families():  # reads the whole file
            pass
        every = np.sort(np.concatenate(ids)) if ids else np.empty(0, "S32")
        if (every[1:] == every[:-1]).any():
            raise ArtifactError(f"{self.path}: two documents have the id {every[1:][every[1:] == every[:-1]][0]!r}")
        recorded = {(cell.source, cell.language, cell.license): cell.flow.kept for cell in manifest.cells}
        if kept != {cell: tally for cell, tally in recorded.items() if tally.documents}:
            raise ArtifactError(f"{self.path}: documents by source, language or licence differ from {MANIFEST}")

    def describe(self) -> Mapping[str, object]:
        manifest = self.manifest
        total = manifest.total
        return {
            "read": total.read.model_dump(),
            "kept": total.kept.model_dump(),
            "splits": {split: manifest.size(split).model_dump() for split in SPLITS},
            "kept by source": _kept(manifest, "source"),
            "kept by language": _kept(manifest, "language"),
            "kept by licence": _kept(manifest, "license"),
            "dropped": {reason: tally.model_dump() for reason, tally in total.dropped.items()},
            "trimmed bytes": dict(total.trimmed),
            "warnings": warnings(manifest),
        }

    def _documents_of(self, shard: int, split: Split, expected: Tally) -> Iterator[Document]:
        return self._shard(self.path / shard_name(split, shard), expected.documents) if expected.documents else iter(())

    def _shard(self, path: Path, expected: int, below: str | None = None) -> Iterator[Document]:
        """The documents of one file; only those with an id below `below` if that is given."""
        import pyarrow.compute as pc

        found = 0
        with _opened(path, COLUMNS, more=True) as file:
            for batch in file.iter_batches(BATCH_DOCUMENTS, columns=list(COLUMNS)):
                found += batch.num_rows
                chosen = batch if below is None else batch.filter(pc.less(batch["id"], below))
                yield from (Document(**row) for row in chosen.to_pylist())
        if found != expected:
            raise ArtifactError(f"{path} holds {found} documents, but {MANIFEST} says {expected}")


def first_words(text: str) -> str:
    """The first words of a text, as a prompt: at most PROMPT_WORDS of them and PROMPT_CHARACTERS characters.

    Rules and other signs before the first letter or digit are left out, where there is one.
    """
    words = text[:1000].split()
    first = next((place for place, word in enumerate(words) if any(map(str.isalnum, word))), 0)
    return " ".join(words[first : first + PROMPT_WORDS])[:PROMPT_CHARACTERS]


def shard_name(split: Split, index: int) -> str:
    return f"documents/{split}-{index:05d}.parquet"


def dropped_name(index: int) -> str:
    return f"dropped/{index:05d}.parquet"


def warnings(manifest: Manifest) -> list[str]:
    """Warnings for readers: sources that lost nearly all documents or gave none, evaluation sets that were not searched
    for."""
    found = []
    for source, flow in manifest.by("source").items():
        dropped = sum(flow.dropped.values(), Tally())
        documents, size = (
            lost / read if read else 0.0
            for lost, read in ((dropped.documents, flow.read.documents), (dropped.bytes, flow.read.bytes))
        )
        if max(documents, size) > LARGE_LOSS:
            worst = max(flow.dropped, key=lambda reason: flow.dropped[reason].documents)
            found.append(
                f"source {source} lost {documents:.0%} of its documents and {size:.0%} of its bytes, most to {worst}"
            )
        unusable: Counter[str] = Counter()
        for cell in manifest.cells:
            if cell.source == source:
                unusable.update({name: count for name, count in cell.counts.items() if name.startswith(UNUSABLE)})
        found += [
            f"source {source}: none of its {count} documents has a usable value for the label "
            f"{name.removeprefix(UNUSABLE)}; correct reader.fields"
            for name, count in sorted(unusable.items())
            if count == flow.read.documents
        ]
    if unchecked := manifest.unchecked_languages():
        named = ", ".join(f"{language} ({count:,})" for language, count in unchecked.items())
        found.append(f"the declared language of {sum(unchecked.values()):,} documents was not checked: {named}")
    for task, known in manifest.contamination.items():
        if known.too_short == known.texts:
            found.append(f"evaluation set {task} was not searched for: all of its {known.texts} texts are too short")
    silent = manifest.sources.keys() - {cell.source for cell in manifest.cells}
    return found + [f"source {source} has no documents" for source in sorted(silent)]


# What a user can change where one of these reasons dropped documents.
_SETTINGS = {
    "read.too_long": "max_raw_bytes",
    "read.no_text": "reader.text_field",
    "text.too_long": "max_bytes",
    "text.too_short": "min_characters",
    "text.replacement_characters": "max_replacement_ratio",
    "text.not_utf8": "reader.encoding",
    "limit.over": "limit_bytes",
}


def named_reasons(dropped: Mapping[str, Tally], most: int = 3) -> str:
    """The reasons that dropped the most documents, with the setting that each depends on."""
    found = sorted(dropped.items(), key=lambda item: (-item[1].documents, item[0]))
    named = [
        f"{tally.documents:,} by {reason}" + (f" (see {_SETTINGS[reason]})" if reason in _SETTINGS else "")
        for reason, tally in found[:most]
    ]
    return ", ".join(named) + (f" and {len(found) - most} other rules" if len(found) > most else "")


def _kept(manifest: Manifest, cut: Cut) -> dict[str, object]:
    """What was kept by source, language or licence, the largest first."""
    flows = sorted(manifest.by(cut).items(), key=lambda item: -item[1].kept.bytes)
    return {name or "(none)": flow.kept.model_dump() for name, flow in flows if flow.kept.documents}


@contextmanager
def _opened(path: Path, columns: Mapping[str, str], more: bool = False) -> Iterator[ParquetFile]:
    """Open a Parquet file with these columns, and others after them if there may be `more`.

    Raises ArtifactError if it is missing, damaged or has other columns.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            found = {field.name: str(field.type) for field in file.schema_arrow}
            if {name: found.get(name) for name in (columns if more else found)} != dict(columns):
                raise ArtifactError(f"{path} has columns {', '.join(found)}; expected {', '.join(columns)}")
            yield file
    except (ArrowException, OSError) as error:
        raise ArtifactError(f"{path} is not a readable Parquet file: {error}") from None
