"""Removes documents from one shard: finds them, then rewrites the shard without them, or copies it unchanged."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stages.artifacts.corpus import (
    BATCH_DOCUMENTS,
    DROPPED_COLUMNS,
    FAMILIES,
    FAMILY_COLUMNS,
    SAMPLE_COLUMNS,
    SAMPLES,
    dropped_name,
    shard_name,
)
from stages.artifacts.manifest import ShardFacts, Tally
from stages.corpus.ingestion.counts import CellKey, Counts, drop_reason
from stages.corpus.ingestion.family_table import ROW_BYTES
from stages.corpus.ingestion.parquet_files import TableWriter, rows_of, use_flat_memory
from stages.corpus.ingestion.writing import DocumentWriter
from stages.corpus.operations.metadata_filters import License, Removals
from stages.corpus.operations.operation import Apply, Draft, Drop
from stages.corpus.operations.word_lists import WordList

OPERATION, LISTED, LICENSE = "remove", "listed", "license"
FACTS = ("id", "source", "path", "url", "license", "language")
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Removal:
    """Which documents to remove. Plain values: they are sent to workers, which read the list themselves."""

    listed: WordList | None
    allow_licenses: tuple[str, ...]
    deny_licenses: tuple[str, ...]

    def rule(self, row: Mapping[str, Any]) -> str | None:
        """The rule that removes a document, or None if it stays. `row` has the keys FACTS."""
        if row["id"] in self._ids:
            return LISTED
        draft = Draft(text="", path=row["path"], url=row["url"], license=row["license"], language=row["language"])
        return next((rule for rule, apply in self._rules if isinstance(apply(draft), Drop)), None)

    @cached_property
    def _ids(self) -> frozenset[str]:
        entries = self.listed.entries() if self.listed else frozenset()
        return frozenset(entry for entry in entries if _ID.fullmatch(entry))

    @cached_property
    def _rules(self) -> list[tuple[str, Apply]]:
        rules = []
        if self.listed is not None:
            rules.append((LISTED, Removals(listed=self.listed).function()))
        if self.allow_licenses or self.deny_licenses:
            rules.append((LICENSE, License(allow=self.allow_licenses, deny=self.deny_licenses).function()))
        return rules


@dataclass(frozen=True)
class FindInShard:
    """A shard to search."""

    index: int
    corpus: Path
    facts: ShardFacts
    removal: Removal


@dataclass(frozen=True)
class FoundInShard:
    """The documents to remove from a shard."""

    ids: tuple[str, ...]  # in its documents and in its ledger
    documents: int
    counts: list[list[Any]]  # see `Counts.rows`: to be added to those of the corpus


@dataclass(frozen=True)
class RewriteShard:
    """A shard to write without the documents whose ids a file lists."""

    index: int
    corpus: Path
    out: Path
    facts: ShardFacts
    removed: Path


def find_in_shard(work: FindInShard) -> FoundInShard:
    """Search the documents and the ledger of a shard for what to remove."""
    import pyarrow.compute as pc
    from pyarrow.parquet import ParquetFile

    use_flat_memory()
    ids, documents, counts = [], 0, Counts()
    for split in work.facts.splits:
        with ParquetFile(work.corpus / shard_name(split, work.index)) as file:
            for batch in file.iter_batches(BATCH_DOCUMENTS, columns=[*FACTS, "text"]):
                sizes = pc.binary_length(batch["text"]).to_pylist()
                for row, size in zip(batch.drop_columns(["text"]).to_pylist(), sizes, strict=True):
                    if rule := work.removal.rule(row):
                        ids.append(row["id"])
                        documents += 1
                        cell = CellKey(row["source"], row["language"], row["license"])
                        counts.kept(cell, size.bit_length(), -1, -size)
                        counts.dropped(cell, drop_reason(OPERATION, rule), size)
    ids += [row["id"] for row in rows_of(work.corpus / dropped_name(work.index)) if work.removal.rule(row)]
    return FoundInShard(tuple(ids), documents, counts.rows())


def rewrite_shard(work: RewriteShard) -> ShardFacts:
    """Rewrite a shard from which documents are removed, copy it otherwise; returns its facts afterwards."""
    use_flat_memory()
    removed = frozenset(work.removed.read_text().split())
    splits = {}
    for split, tally in work.facts.splits.items():
        name = shard_name(split, work.index)
        left = _rewrite_documents(work.corpus / name, work.out / name, tally, removed)
        if left.documents:
            splits[split] = left
    name = dropped_name(work.index)
    dropped = _rewrite_ledger(work.corpus / name, work.out / name, removed)
    return ShardFacts(source=work.facts.source, splits=splits, dropped=dropped)


def rewrite_samples(corpus: Path, out: Path, removed: frozenset[str]) -> None:
    """Write the samples without removed documents and without copies of these, which have the same text."""
    with TableWriter(out / SAMPLES, SAMPLE_COLUMNS) as samples:
        for row in rows_of(corpus / SAMPLES):
            if row["id"] not in removed and row["value"] not in removed:
                samples.add(row)


def rewrite_families(corpus: Path, out: Path, removed: frozenset[str]) -> None:
    """Write the families without those of a removed document: the other members show what it said."""
    gone = {row["family"] for row in rows_of(corpus / FAMILIES) if row["id"] in removed}
    with TableWriter(out / FAMILIES, FAMILY_COLUMNS) as families:
        for row in rows_of(corpus / FAMILIES):
            if row["family"] not in gone:
                families.add(row, ROW_BYTES)


def _rewrite_documents(source: Path, target: Path, tally: Tally, removed: frozenset[str]) -> Tally:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow.parquet import ParquetFile

    ids = pa.array(sorted(removed), pa.string())
    with ParquetFile(source) as file:
        if not pc.any(pc.is_in(file.read(columns=["id"])["id"], ids)).as_py():
            shutil.copyfile(source, target)
            return tally
        writer = DocumentWriter(target)
        documents = size = 0
        for batch in file.iter_batches(BATCH_DOCUMENTS):
            kept = batch.filter(pc.invert(pc.is_in(batch["id"], ids)))
            documents += kept.num_rows
            size += pc.sum(pc.binary_length(kept["text"])).as_py() or 0
            writer.add(kept)
        writer.close()
    return Tally(documents=documents, bytes=size)


def _rewrite_ledger(source: Path, target: Path, removed: frozenset[str]) -> int:
    """Write the ledger and return its number of rows. A copy that was dropped no longer names the removed document."""
    rows = touched = 0
    with TableWriter(target, DROPPED_COLUMNS) as ledger:
        for row in rows_of(source):
            if row["id"] in removed:
                touched += 1
                continue
            if row["value"] in removed:
                touched += 1
                row["value"] = ""
            ledger.add(row)
            rows += 1
    if not touched:
        shutil.copyfile(source, target)  # keeps the bytes, whichever version wrote them
    return rows
