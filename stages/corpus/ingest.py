"""Ingests documents from many sources: applies operations, removes duplicates, and accounts for every byte read.

The work has three phases. Shards are read in parallel, and each document passes the operations of its source. Then the
stage decides over the whole corpus which documents to keep, from 40 bytes per document. Then shards are written in
parallel. The result depends on content and configuration only, not on the number of workers or on how often they were
killed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeVar

from pydantic import Field, NonNegativeInt, PositiveInt

from stages.artifacts.corpus import Corpus
from stages.artifacts.manifest import Split, Tally
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
    from stages.corpus.ingestion.validation_split import ValidationSplit


class ShardWork(Protocol):
    """Work on one shard that fills an output folder."""

    @property
    def output(self) -> Path: ...


Work = TypeVar("Work", bound=ShardWork)
SourceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class IngestCorpus(Stage):
    """Reads the documents of all sources, filters them and divides them into two splits."""

    headline: ClassVar[str | None] = "kept_megabytes"
    # 6: encodings as browsers read them, languages outside of ROOTS are checked, texts are bounded after the
    # operations, labels may be numbers, samples of what was kept
    version: ClassVar[str] = "6"

    sources: Mapping[SourceName, Source] = Field(min_length=1)
    min_characters: NonNegativeInt = 100  # of a text after the operations, without surrounding white space
    max_bytes: PositiveInt = 1_000_000  # of a text after the operations
    max_raw_bytes: PositiveInt = 10_000_000  # of a text or a page as read; never less than max_bytes
    max_replacement_ratio: float = Field(default=0.001, ge=0, le=1)  # U+FFFD per character, as read
    deduplicate: tuple[AnyRule, ...] = (ExactDuplicates(),)  # rules in order, over the documents of all sources
    decontaminate: Decontaminate | None = None  # evaluation sets to keep out
    limit_bytes: PositiveInt | None = None  # of all kept texts; null: no limit
    validation_fraction: float = Field(default=0.05, ge=0, lt=1)  # of documents, by hash; 0: no validation split
    validation_documents_per_language: NonNegativeInt = 0  # a minimum, where the fraction gives fewer
    validation_share_per_language: float = Field(default=0.2, gt=0, le=0.5)  # at most, to reach that minimum
    shard_bytes: PositiveInt = 64_000_000  # stored bytes that are read into one shard, where files can be divided
    samples_per_rule: NonNegativeInt = 5  # documents with their text, of each source: dropped by each rule, and kept
    seed: NonNegativeInt = 0  # of these samples
    workers: Runtime[NonNegativeInt] = 0  # 0: as many as the cluster has room for; 1: the step's own process
    worker: Runtime[Resources] = Resources()  # what each worker requests
    memory_bytes: Runtime[PositiveInt] = 1 << 30  # for a decision over the corpus, plus about 100 bytes per document

    def demand(self) -> Demand:
        # The step's own process only waits, unless it does the work itself.
        return Demand(task=self.worker if self.workers == 1 else Resources(cpus=0))

    def run(self, ctx: Context) -> Corpus:
        from stages.corpus.ingestion.assembly import assemble
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
            max_raw_bytes=max(self.max_raw_bytes, self.max_bytes),
            max_replacement_ratio=self.max_replacement_ratio,
        )
        sampling = {"samples": self.samples_per_rule, "seed": self.seed}
        reads = [
            ReadShard(shard, self.sources[shard.source], rules, folder=folders["read"], **sampling) for shard in shards
        ]
        read = self._map_shards(ctx, "read", read_shard, reads, shards)
        counts = Counts(row for facts in read for row in facts["counts"])  # refuses too many labels
        dropped = counts.dropped_by_reason()
        decisions = self._decide(ctx, reads, folders, dropped)
        self._check_splits(decisions.documents, {**dropped, **decisions.dropped})
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
        corpus = assemble(
            ctx, self.sources, shards, read, written, outputs, samples, decisions.contamination, self._check_splits
        )
        self._warn_of_default_bounds(ctx, corpus)
        return corpus

    def _warn_of_default_bounds(self, ctx: Context, corpus: Corpus) -> None:
        """Name what a bound dropped that the user did not choose: a whole book is longer than the default."""
        for name, reason in (("max_raw_bytes", "read.too_long"), ("max_bytes", "text.too_long")):
            if getattr(self, name) != type(self).model_fields[name].default:
                continue
            for source, flow in corpus.manifest.by("source").items():
                if lost := flow.dropped.get(reason):
                    ctx.note(
                        f"warning: source {source}: {lost.documents:,} documents with {lost.bytes / 1e6:,.1f} MB are "
                        f"longer than {name} ({getattr(self, name):,}, the default) and were dropped by {reason}: "
                        f"raise {name} to keep them"
                    )

    def _decide(
        self, ctx: Context, reads: Sequence[ReadShard], folders: Mapping[str, Path], dropped: Mapping[str, Tally]
    ) -> Decisions:
        import numpy as np

        from stages.corpus.ingestion.decisions import decide_all
        from stages.corpus.ingestion.document_index import DocumentIndex
        from stages.corpus.ingestion.drafts import Drafts
        from stages.corpus.ingestion.reading import DRAFTS, SIGNATURES
        from stages.corpus.ingestion.rule_decision import over_limit

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
        )
        choose = self._validation_split().chooser(drafts)
        # Rules only take documents away, so a split that is empty without them is known to be empty before their work.
        validation = choose(index, np.ones(len(index), bool), np.zeros(len(index), np.int64))
        most: dict[Split, int] = {"train": int((~validation).sum()), "validation": int(validation.sum())}
        self._check_splits(most, dropped)
        deciders = [rule.decider(drafts) for rule in self.deduplicate]
        if self.decontaminate is not None:
            deciders.append(self.decontaminate.decider(drafts))
        if self.limit_bytes is not None:
            deciders.append(over_limit(self.limit_bytes))
        return decide_all(index, deciders, choose, folders["decided"])

    def _validation_split(self) -> ValidationSplit:
        from stages.corpus.ingestion.validation_split import ValidationSplit

        return ValidationSplit(
            fraction=self.validation_fraction,
            documents_per_language=self.validation_documents_per_language,
            enough_bytes=4 * self.min_characters,  # the longest UTF-8 characters
            share_per_language=self.validation_share_per_language,
        )

    def _check_splits(self, documents: Mapping[Split, int], dropped: Mapping[str, Tally]) -> None:
        from stages.corpus.ingestion.split_check import check_splits

        wants_validation = bool(self.validation_fraction or self.validation_documents_per_language)
        check_splits(documents, dropped, self.validation_fraction, wants_validation)

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
