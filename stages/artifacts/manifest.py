"""The numbers of a corpus: documents and bytes that were read, kept and dropped, and the rules that dropped them.

The numbers are stored once, in cells: one for each combination of source, language and licence. All others are sums of
cells, so that totals by source, by language and by licence agree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import NonNegativeInt, model_validator

from stages.base import Config

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
# Names of counts of a cell.
UNCHECKED = "language_unchecked"  # documents whose declared language the detector does not know
UNUSABLE = "unusable_"  # and the name of a label: documents whose record has no usable value for it
Cut = Literal["source", "language", "license"]


class Tally(Config):
    """A number of documents and the bytes of their texts."""

    documents: NonNegativeInt = 0
    bytes: NonNegativeInt = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(documents=self.documents + other.documents, bytes=self.bytes + other.bytes)


class Flow(Config):
    """Documents and bytes that were read, and what happened to them.

    For documents, `read` is always `kept` plus the sum of `dropped`. For bytes, the sum of `trimmed` is added.
    """

    read: Tally = Tally()
    kept: Tally = Tally()
    dropped: Mapping[str, Tally] = {}  # "operation.rule" -> documents, with the bytes that they had when dropped
    trimmed: Mapping[str, int] = {}  # operation -> bytes that it removed from texts (negative if it added some)

    @model_validator(mode="after")
    def _conserved(self) -> Flow:
        accounted = sum(self.dropped.values(), self.kept)
        trimmed = sum(self.trimmed.values())
        if self.read.documents != accounted.documents or self.read.bytes != accounted.bytes + trimmed:
            raise ValueError("the documents or bytes that were read are not the sum of those kept, dropped and trimmed")
        return self

    @classmethod
    def sum(cls, flows: Iterable[Flow]) -> Flow:
        """The sum of all flows, with reasons in the order of their names."""
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
    """The documents of one source, one language (as detected in the end) and one licence."""

    source: str
    language: str
    license: str
    flow: Flow
    lengths: Mapping[int, Tally] = {}  # kept documents by the bit length of their bytes: n holds 2**(n-1) to 2**n - 1
    counts: Mapping[str, int] = {}  # what operations counted in the documents that they kept: "pii_email" -> 3

    @model_validator(mode="after")
    def _whole(self) -> Cell:
        if sum(self.lengths.values(), Tally()) != self.flow.kept:
            raise ValueError("the documents by length do not add up to those kept")
        return self

    @classmethod
    def sum(cls, cells: Iterable[Cell]) -> tuple[Cell, ...]:
        """The sums of cells with the same source, language and licence, ordered by these."""
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
    """The declaration of a source."""

    reader: str
    rank: int
    weight: float
    operations: tuple[Mapping[str, Any], ...]  # each with its values and version; content by its digest
    chain: str  # the hash of the operations with their versions and the content that they read; a column of documents


class ShardFacts(Config):
    """The documents of one shard by split (a split without documents has no file), and those in its ledger."""

    source: str
    splits: Mapping[Split, Tally]
    dropped: NonNegativeInt


class Contamination(Config):
    """An evaluation task whose texts were to be removed from the corpus."""

    documents: NonNegativeInt  # that contained a passage of the task
    texts: NonNegativeInt  # of the task
    too_short: NonNegativeInt  # texts with fewer words than a passage, which were not searched for


class Manifest(Config):
    """The numbers of a corpus, and the sources, operations and package versions that produced it."""

    sources: Mapping[str, SourceFacts]
    cells: tuple[Cell, ...]
    shards: tuple[ShardFacts, ...]
    forgotten: NonNegativeInt = 0  # dropped documents that were removed from the ledger later
    contamination: Mapping[str, Contamination] = {}  # by evaluation task
    versions: Mapping[str, str] = {}  # of the packages that the result depends on

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        kept = sum((cell.flow.kept for cell in self.cells), Tally())
        if sum((self.size(split) for split in SPLITS), Tally()) != kept:
            raise ValueError("the documents kept by split do not add up to the total")
        dropped = sum(tally.documents for cell in self.cells for tally in cell.flow.dropped.values())
        if sum(shard.dropped for shard in self.shards) + self.forgotten != dropped:
            raise ValueError("the documents dropped by shard do not add up to the total")
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
    def counts(self) -> dict[str, int]:
        """What operations and readers counted, in the order of the names."""
        found: Counter[str] = Counter()
        for cell in self.cells:
            found.update(cell.counts)
        return dict(sorted(found.items()))

    def unchecked_languages(self) -> dict[str, int]:
        """The documents whose declared language could not be checked, by language."""
        found: Counter[str] = Counter()
        for cell in self.cells:
            if count := cell.counts.get(UNCHECKED):
                found[cell.language] += count
        return dict(sorted(found.items()))

    @property
    def lengths(self) -> dict[int, Tally]:
        """The kept documents by the bit length of their size in bytes."""
        return summed(length for cell in self.cells for length in cell.lengths.items())


def summed(lengths: Iterable[tuple[int, Tally]]) -> dict[int, Tally]:
    """The sum of the tallies of each key, in the order of the keys."""
    found: dict[int, Tally] = defaultdict(Tally)
    for length, tally in lengths:
        found[length] += tally
    return dict(sorted(found.items()))
