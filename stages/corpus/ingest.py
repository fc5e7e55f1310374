"""Ingests documents: many sources, each with its operations; duplicates removed; every byte read accounted for.

Three phases. Shards are read side by side, each document through the operations of its source. Then it is decided
over the whole corpus, from 40 bytes a document, which stay. Then shards are written side by side. What comes out
depends on the content and the configuration alone: never on the number of workers, nor on how often they were killed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeVar

from pydantic import Field, NonNegativeInt, PositiveInt

from stages.artifacts.corpus import Corpus
from stages.base import Context, Demand, Resources, Runtime, Stage
from stages.corpus.deduplication.exact import ExactDuplicates
from stages.corpus.deduplication.registry import AnyRule
from stages.corpus.ingestion.decontamination import Decontaminate
from stages.corpus.ingestion.shards import Shard, by_rank, plan
from stages.corpus.ingestion.text_rules import TextRules
from stages.corpus.source import Source

if TYPE_CHECKING:
    from stages.corpus.ingestion.decisions import Decisions
    from stages.corpus.ingestion.reading import ReadShard


class Placed(Protocol):
    """Work on one shard that fills a folder."""

    @property
    def place(self) -> Path: ...


Work = TypeVar("Work", bound=Placed)
SourceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class IngestCorpus(Stage):
    """Documents of every source, in two splits. Leaves Corpus."""

    headline: ClassVar[str | None] = "kept_megabytes"
    version: ClassVar[str] = "5"

    sources: Mapping[SourceName, Source] = Field(min_length=1)
    min_characters: NonNegativeInt = 100  # of a text without the white space around it, after the operations
    max_bytes: PositiveInt = 1_000_000  # of a text as read
    max_replacement_ratio: float = Field(default=0.001, ge=0, le=1)  # U+FFFD per character, as read
    deduplicate: tuple[AnyRule, ...] = (ExactDuplicates(),)  # rules in turn, over the documents of all sources
    decontaminate: Decontaminate | None = None  # evaluation sets to keep out
    limit_bytes: PositiveInt | None = None  # of all that is kept; null: no cap
    validation_fraction: float = Field(default=0.05, gt=0, lt=1)  # of documents, by hash
    validation_documents_per_language: NonNegativeInt = 0  # where the fraction gives fewer: those with smallest hashes
    validation_share_per_language: float = Field(default=0.2, gt=0, le=0.5)  # of a language, at most, for that number
    shard_bytes: PositiveInt = 64_000_000  # stored bytes of what is read into one shard, where it can be divided
    samples_per_rule: NonNegativeInt = 5  # dropped documents of each source and rule that are kept to be looked at
    seed: NonNegativeInt = 0  # of these samples
    workers: Runtime[NonNegativeInt] = 0  # 0: as many as there is room for; 1: the step's own process
    worker: Runtime[Resources] = Resources()  # what each asks
    memory_bytes: Runtime[PositiveInt] = 1 << 30  # for a decision over the whole, beside some 100 bytes a document

    def demand(self) -> Demand:
        # The step's own process only waits, unless it does the work.
        return Demand(task=self.worker if self.workers == 1 else Resources(cpus=0))

    def run(self, ctx: Context) -> Corpus:
        from stages.corpus.ingestion.assembly import assemble
        from stages.corpus.ingestion.completion_markers import clear_leftovers
        from stages.corpus.ingestion.ledger import Counts, Samples
        from stages.corpus.ingestion.reading import ReadShard, read_shard
        from stages.corpus.ingestion.writing import WriteShard, write_shard

        shards = plan(self.sources, self.shard_bytes)
        folders = {name: ctx.scratch / name for name in ("read", "measured", "decided", "written")}
        for folder in folders.values():
            clear_leftovers(folder)
        rules = TextRules(
            min_characters=self.min_characters,
            max_bytes=self.max_bytes,
            max_replacement_ratio=self.max_replacement_ratio,
        )
        sampling = {"samples": self.samples_per_rule, "seed": self.seed}
        reads = [
            ReadShard(shard, self.sources[shard.source], rules, folder=folders["read"], **sampling) for shard in shards
        ]
        read = self._each(ctx, "read", read_shard, reads, shards)
        Counts(row for facts in read for row in facts["counts"])  # too many labels are an error before they are work
        decisions = self._decide(ctx, reads, folders)
        writes = [
            WriteShard(
                read=work.place,
                decision=file,
                decision_digest=digest,
                rules=decisions.rules,
                bounds=rules,
                place=folders["written"] / work.place.name,
                **sampling,
            )
            for work, (file, digest) in zip(reads, decisions.files, strict=True)
        ]
        written = self._each(ctx, "written", write_shard, writes, shards)
        drawn = Samples(self.samples_per_rule, self.seed)
        places = [work.place for work in writes]
        return assemble(ctx, self.sources, shards, read, written, places, drawn, decisions.contamination)

    def _decide(self, ctx: Context, reads: Sequence[ReadShard], folders: Mapping[str, Path]) -> Decisions:
        from stages.corpus.ingestion.decisions import decide
        from stages.corpus.ingestion.document_index import Index, over_limit
        from stages.corpus.ingestion.drafts import Drafts
        from stages.corpus.ingestion.reading import DRAFTS, SIGNATURES
        from stages.corpus.ingestion.validation_split import Validation

        ranks = {name: rank for rank, (name, _) in enumerate(by_rank(self.sources))}
        index = Index.load([work.place / SIGNATURES for work in reads], [ranks[work.shard.source] for work in reads])
        drafts = Drafts(
            files=[work.place / DRAFTS for work in reads],
            sources=[work.shard.source for work in reads],
            folder=folders["measured"],
            memory_bytes=self.memory_bytes,
            each=lambda done, function, work: self._each(ctx, done, function, work, [read.shard for read in reads]),
        )
        judges = [rule.judge(drafts) for rule in self.deduplicate]
        if self.decontaminate is not None:
            judges.append(self.decontaminate.judge(drafts))
        if self.limit_bytes is not None:
            judges.append(over_limit(self.limit_bytes))
        validation = Validation(
            fraction=self.validation_fraction,
            documents_per_language=self.validation_documents_per_language,
            enough_bytes=4 * self.min_characters,  # characters of UTF-8 at their longest
            share_per_language=self.validation_share_per_language,
        )
        return decide(index, judges, validation.split(drafts), folders["decided"])

    def _each(
        self,
        ctx: Context,
        done: str,
        function: Callable[[Work], Mapping[str, Any]],
        work: Sequence[Work],
        shards: Sequence[Shard],
    ) -> list[Mapping[str, Any]]:
        """What `function` tells of each shard, in their order; shows how far it is."""
        from stages.corpus.ingestion.shard_progress import Meter

        facts: dict[int, Mapping[str, Any]] = {}
        with Meter(ctx, done, shards, work[0].place.parent) as meter:
            for index, found in ctx.map(function, work, workers=self.workers, resources=self.worker):
                facts[index] = found
                meter.finished(index)
        return [facts[index] for index in range(len(work))]
