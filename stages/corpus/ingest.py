"""Ingests documents from many sources: applies operations, removes duplicates, and accounts for every byte read.

The work has three phases. Shards are read in parallel, and each document passes the operations of its source. Then the
stage decides over the whole corpus which documents to keep, from 40 bytes per document. Then shards are written in
parallel. The result depends on content and configuration only, not on the number of workers or on how often they were
killed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeVar

from pydantic import Field, NonNegativeInt, PositiveInt

from stages.artifacts.corpus import Corpus
from stages.base import Context, Demand, Resources, Runtime, Stage
from stages.corpus.deduplication.exact import ExactDuplicates
from stages.corpus.deduplication.registry import AnyRule
from stages.corpus.ingestion.decontamination import Decontaminate
from stages.corpus.ingestion.shards import Shard, by_rank, plan_shards
from stages.corpus.ingestion.text_rules import TextRules
from stages.corpus.source import Source

if TYPE_CHECKING:
    from stages.corpus.ingestion.decisions import Decisions
    from stages.corpus.ingestion.reading import ReadShard


class ShardWork(Protocol):
    """Work on one shard that fills an output folder."""

    @property
    def output(self) -> Path: ...


Work = TypeVar("Work", bound=ShardWork)
SourceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class IngestCorpus(Stage):
    """Reads the documents of all sources, filters them and divides them into two splits."""

    headline: ClassVar[str | None] = "kept_megabytes"
    version: ClassVar[str] = "5"

    sources: Mapping[SourceName, Source] = Field(min_length=1)
    min_characters: NonNegativeInt = 100  # of a text after the operations, without surrounding white space
    max_bytes: PositiveInt = 1_000_000  # of a text as read
    max_replacement_ratio: float = Field(default=0.001, ge=0, le=1)  # U+FFFD per character, as read
    deduplicate: tuple[AnyRule, ...] = (ExactDuplicates(),)  # rules in order, over the documents of all sources
    decontaminate: Decontaminate | None = None  # evaluation sets to keep out
    limit_bytes: PositiveInt | None = None  # of all kept texts; null: no limit
    validation_fraction: float = Field(default=0.05, gt=0, lt=1)  # of documents, by hash
    validation_documents_per_language: NonNegativeInt = 0  # a minimum, where the fraction gives fewer
    validation_share_per_language: float = Field(default=0.2, gt=0, le=0.5)  # at most, to reach that minimum
    shard_bytes: PositiveInt = 64_000_000  # stored bytes that are read into one shard, where files can be divided
    samples_per_rule: NonNegativeInt = 5  # dropped documents of each source and rule that are kept with their text
    seed: NonNegativeInt = 0  # of these samples
    workers: Runtime[NonNegativeInt] = 0  # 0: as many as the cluster has room for; 1: the step's own process
    worker: Runtime[Resources] = Resources()  # what each worker requests
    memory_bytes: Runtime[PositiveInt] = 1 << 30  # of each process that decides, plus about 100 bytes per document

    def demand(self) -> Demand:
        # The step's own process only waits, unless it does the work itself.
        return Demand(task=self.worker if self.workers == 1 else Resources(cpus=0))

    def run(self, ctx: Context) -> Corpus:
        from stages.corpus.ingestion.assembly import assemble
        from stages.corpus.ingestion.bad_files import bad_file_notes
        from stages.corpus.ingestion.completion_markers import remove_partial_folders
        from stages.corpus.ingestion.counts import Counts
        from stages.corpus.ingestion.reading import ReadShard, read_shard
        from stages.corpus.ingestion.samples import Samples
        from stages.corpus.ingestion.writing import WriteShard, write_shard

        shards = plan_shards(self.sources, self.shard_bytes)
        folders = {name: ctx.scratch / name for name in ("read", "measured", "decided", "written")}
        for folder in folders.values():
            remove_partial_folders(folder)
        rules = TextRules(
            min_characters=self.min_characters,
            max_bytes=self.max_bytes,
            max_replacement_ratio=self.max_replacement_ratio,
        )
        sampling = {"samples": self.samples_per_rule, "seed": self.seed}
        reads = [
            ReadShard(shard, self.sources[shard.source], rules, folder=folders["read"], **sampling) for shard in shards
        ]
        read = self._map_shards(ctx, "read", read_shard, reads, shards)
        Counts(row for facts in read for row in facts["counts"])  # refuses too many labels before the work continues
        for note in bad_file_notes(shards, read):
            ctx.note(note)
        decisions = self._decide(ctx, reads, folders)
        writes = [
            WriteShard(
                read=work.output,
                decision=file,
                decision_digest=digest,
                rules=decisions.rules,
                bounds=rules,
                output=folders["written"] / work.output.name,
                **sampling,
            )
            for work, (file, digest) in zip(reads, decisions.files, strict=True)
        ]
        written = self._map_shards(ctx, "written", write_shard, writes, shards)
        samples = Samples(self.samples_per_rule, self.seed)
        outputs = [work.output for work in writes]
        return assemble(ctx, self.sources, shards, read, written, outputs, samples, decisions.contamination)

    def _decide(self, ctx: Context, reads: Sequence[ReadShard], folders: Mapping[str, Path]) -> Decisions:
        from stages.corpus.ingestion.decisions import decide_all
        from stages.corpus.ingestion.document_index import DocumentIndex
        from stages.corpus.ingestion.drafts import Drafts
        from stages.corpus.ingestion.reading import DRAFTS, SIGNATURES
        from stages.corpus.ingestion.rule_decision import over_limit
        from stages.corpus.ingestion.validation_split import ValidationSplit

        ranks = {name: rank for rank, (name, _) in enumerate(by_rank(self.sources))}
        signatures = [work.output / SIGNATURES for work in reads]
        index = DocumentIndex.load(signatures, [ranks[work.shard.source] for work in reads])
        shards = [work.shard for work in reads]
        drafts = Drafts(
            files=[work.output / DRAFTS for work in reads],
            sources=[shard.source for shard in shards],
            folder=folders["measured"],
            memory_bytes=self.memory_bytes,
            map_shards=lambda phase, function, work: self._map_shards(ctx, phase, function, work, shards),
            map_work=partial(self._map_work, ctx),
        )
        deciders = [rule.decider(drafts) for rule in self.deduplicate]
        if self.decontaminate is not None:
            deciders.append(self.decontaminate.decider(drafts))
        if self.limit_bytes is not None:
            deciders.append(over_limit(self.limit_bytes))
        validation = ValidationSplit(
            fraction=self.validation_fraction,
            documents_per_language=self.validation_documents_per_language,
            enough_bytes=4 * self.min_characters,  # the longest UTF-8 characters
            share_per_language=self.validation_share_per_language,
        )
        return decide_all(index, deciders, validation.chooser(drafts), folders["decided"])

    def _map_work(
        self, ctx: Context, phase: str, function: Callable[[Any], object], work: Sequence[Any], spread: bool
    ) -> None:
        """Apply `function` to work that is not divided by shard, in this process unless it is to be `spread`."""
        workers = self.workers if spread else 1
        for done, _ in enumerate(ctx.map(function, work, workers=workers, resources=self.worker), 1):
            ctx.progress(done, len(work), "parts", **{phase: f"{done} of {len(work)}"})

    def _map_shards(
        self,
        ctx: Context,
        phase: str,
        function: Callable[[Work], Mapping[str, Any]],
        work: Sequence[Work],
        shards: Sequence[Shard],
    ) -> list[Mapping[str, Any]]:
        """Apply `function` to the work on each shard; returns its facts in the order of the shards. Shows progress."""
        from stages.corpus.ingestion.shard_progress import ProgressMeter

        facts: dict[int, Mapping[str, Any]] = {}
        with ProgressMeter(ctx, phase, shards, work[0].output.parent) as meter:
            for index, found in ctx.map(function, work, workers=self.workers, resources=self.worker):
                facts[index] = found
                meter.finished(index)
        return [facts[index] for index in range(len(work))]
