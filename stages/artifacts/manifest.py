"""A corpus in numbers: what came in, what was kept, what was dropped and why; the same sums however they are cut.

The numbers are kept once, in cells: one for each source, language and licence. Everything else is a sum of cells.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import NonNegativeInt, model_validator

from stages.base import Config

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
Cut = Literal["source", "language", "license"]


class Tally(Config):
    """A number of documents and the bytes of their texts."""

    documents: NonNegativeInt = 0
    bytes: NonNegativeInt = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(documents=self.documents + other.documents, bytes=self.bytes + other.bytes)


class Flow(Config):
    """What came in and became of it. Always `read` = `kept` + the sum of `dropped`; of bytes, + that of `trimmed`."""

    read: Tally = Tally()
    kept: Tally = Tally()
    dropped: Mapping[str, Tally] = {}  # "operation.rule" -> documents, with the bytes that they had when dropped
    trimmed: Mapping[str, int] = {}  # operation -> bytes that it took out of texts (below 0: it added some)

    @model_validator(mode="after")
    def _conserved(self) -> Flow:
        accounted = sum(self.dropped.values(), self.kept)
        trimmed = sum(self.trimmed.values())
        if self.read.documents != accounted.documents or self.read.bytes != accounted.bytes + trimmed:
            raise ValueError("documents or bytes read are not those kept plus those dropped and trimmed")
        return self

    @classmethod
    def sum(cls, flows: Iterable[Flow]) -> Flow:
        """All flows as one; reasons in the order of their names."""
        read, kept = Tally(), Tally()
        dropped: dict[str, Tally] = defaultdict(Tally)
        trimmed: dict[str, int] = defaultdict(int)
        for flow in flows:
            read, kept = read + flow.read, kept + flow.kept
            for reason, tally in flow.dropped.items():
                dropped[reason] += tally
            for operation, bytes_ in flow.trimmed.items():
                trimmed[operation] += bytes_
        return cls(read=read, kept=kept, dropped=dict(sorted(dropped.items())), trimmed=dict(sorted(trimmed.items())))


class Cell(Config):
    """The documents of one source that ended with one language and one licence."""

    source: str
    language: str
    license: str
    flow: Flow
    lengths: Mapping[int, Tally] = {}  # kept documents by the bit length of their bytes: n holds 2**(n-1) to 2**n - 1
    counts: Mapping[str, int] = {}  # what operations did in documents that passed them: "pii_email" -> 3

    @model_validator(mode="after")
    def _whole(self) -> Cell:
        if sum(self.lengths.values(), Tally()) != self.flow.kept:
            raise ValueError("documents by length do not add up to those kept")
        return self

    @classmethod
    def sum(cls, cells: Iterable[Cell]) -> tuple[Cell, ...]:
        """Cells of the same source, language and licence as one; in the order of these."""
        alike: dict[tuple[str, str, str], list[Cell]] = defaultdict(list)
        for cell in cells:
            alike[cell.source, cell.language, cell.license].append(cell)
        return tuple(
            cls(
                source=source,
                language=language,
                license=license_,
                flow=Flow.sum(cell.flow for cell in found),
                lengths=summed(length for cell in found for length in cell.lengths.items()),
                counts=dict(sum((Counter(cell.counts) for cell in found), Counter())),
            )
            for (source, language, license_), found in sorted(alike.items())
        )


class SourceFacts(Config):
    """How a source was declared."""

    reader: str
    rank: int
    weight: float
    operations: tuple[Mapping[str, Any], ...]  # each with its values and version; content by its digest
    chain: str  # the hash of the operations, with their versions and the content that they use: a document's column


class ShardFacts(Config):
    """One shard: the documents of each split (no file where there are none), and how many the ledger names."""

    source: str
    splits: Mapping[Split, Tally]
    dropped: NonNegativeInt


class Contamination(Config):
    """An evaluation task that was to be kept out."""

    documents: NonNegativeInt  # that held a passage of it
    texts: NonNegativeInt  # of the task
    too_short: NonNegativeInt  # of these: they have fewer words than a passage and were not looked for


class Manifest(Config):
    """A corpus in numbers, and what made it."""

    sources: Mapping[str, SourceFacts]
    cells: tuple[Cell, ...]
    shards: tuple[ShardFacts, ...]
    forgotten: NonNegativeInt = 0  # documents dropped of which the ledger no longer tells: they were removed
    contamination: Mapping[str, Contamination] = {}  # by evaluation task
    versions: Mapping[str, str] = {}  # of the packages that decide what comes out

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        kept = sum((cell.flow.kept for cell in self.cells), Tally())
        if sum((self.size(split) for split in SPLITS), Tally()) != kept:
            raise ValueError("what was kept by split does not add up to the total")
        dropped = sum(tally.documents for cell in self.cells for tally in cell.flow.dropped.values())
        if sum(shard.dropped for shard in self.shards) + self.forgotten != dropped:
            raise ValueError("documents dropped by shard do not add up to the total")
        unknown = {cell.source for cell in self.cells} | {shard.source for shard in self.shards}
        if unknown := unknown - self.sources.keys():
            raise ValueError(f"source {min(unknown)!r} is not declared")
        return self

    @property
    def total(self) -> Flow:
        return Flow.sum(cell.flow for cell in self.cells)

    def by(self, cut: Cut) -> dict[str, Flow]:
        """The flow of each source, language or licence, in the order of their names."""
        flows: dict[str, list[Flow]] = defaultdict(list)
        for cell in self.cells:
            flows[getattr(cell, cut)].append(cell.flow)
        return {name: Flow.sum(flows[name]) for name in sorted(flows)}

    def size(self, split: Split) -> Tally:
        return sum((shard.splits[split] for shard in self.shards if split in shard.splits), Tally())

    @property
    def lengths(self) -> dict[int, Tally]:
        """Kept documents by the bit length of their bytes."""
        return summed(length for cell in self.cells for length in cell.lengths.items())


def summed(lengths: Iterable[tuple[int, Tally]]) -> dict[int, Tally]:
    """Tallies of the same key as one; in the order of the keys."""
    found: dict[int, Tally] = defaultdict(Tally)
    for length, tally in lengths:
        found[length] += tally
    return dict(sorted(found.items()))
