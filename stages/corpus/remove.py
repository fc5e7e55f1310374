"""Removes documents from a corpus that is complete: because their owners ask for it, or because of their licence.

Only the shards that hold such a document, or name one in their ledger, are rewritten; the others are copied unchanged.
Neither the text nor the id, path or address of a removed document remains in shards, ledger or samples. The manifest
counts it under "remove.listed" or "remove.license". Documents that had been dropped as its copies do not come back.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, NonNegativeInt, model_validator

from stages.artifacts.corpus import MANIFEST, Corpus
from stages.artifacts.manifest import SPLITS, Manifest
from stages.base import Context, Demand, Resources, Runtime, Stage, StageError
from stages.corpus.operations.word_lists import WordList

Names = tuple[Annotated[str, Field(min_length=1)], ...]


class RemoveDocuments(Stage):
    """Removes from a corpus the documents that a list names or whose licence is not allowed.

    The list is a file with one entry per line: an id, an address ("https://host/a/" includes everything below it), a
    host with its subdomains, a path within the source, or a licence.
    """

    headline: ClassVar[str | None] = "removed_documents"

    corpus: Corpus
    listed: WordList | None = None
    allow_licenses: Names = ()  # SPDX names, "*" matches anything; empty: all that are not denied
    deny_licenses: Names = ()
    workers: Runtime[NonNegativeInt] = 0  # 0: as many as the cluster has room for; 1: the step's own process

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.listed is None and not self.allow_licenses and not self.deny_licenses:
            raise ValueError("nothing would be removed: set listed, allow_licenses or deny_licenses")
        return self

    def demand(self) -> Demand:
        return Demand(task=Resources(cpus=1 if self.workers == 1 else 0))

    def run(self, ctx: Context) -> Corpus:
        from stages.corpus.ingestion.assembly import report
        from stages.corpus.ingestion.counts import Counts
        from stages.corpus.ingestion.removal import (
            FindInShard,
            Removal,
            RewriteShard,
            find_in_shard,
            rewrite_families,
            rewrite_samples,
            rewrite_shard,
        )

        before = self.corpus.manifest
        removal = Removal(self.listed, self.allow_licenses, self.deny_licenses)
        shards = range(len(before.shards))
        finds = [FindInShard(index, self.corpus.path, before.shards[index], removal) for index in shards]
        found = dict(ctx.map(find_in_shard, finds, workers=self.workers))
        removed = frozenset(id_ for one in found.values() for id_ in one.ids)
        listed = ctx.scratch / "removed.txt"
        listed.write_text("\n".join(sorted(removed)))
        for folder in ("documents", "dropped"):
            (ctx.out / folder).mkdir()
        rewrites = [RewriteShard(index, self.corpus.path, ctx.out, before.shards[index], listed) for index in shards]
        facts = {}
        for index, shard in ctx.map(rewrite_shard, rewrites, workers=self.workers):
            facts[index] = shard
            ctx.progress(len(facts), len(rewrites), "shards")
        rewrite_families(self.corpus.path, ctx.out, removed)
        rewrite_samples(self.corpus.path, ctx.out, removed)
        counts = Counts.of(before.cells)
        counts.add_rows(row for index in shards for row in found[index].counts)
        documents = sum(found[index].documents for index in shards)
        erased = sum(old.dropped - facts[index].dropped for index, old in enumerate(before.shards))
        manifest = Manifest(
            sources=before.sources,
            cells=counts.cells(),
            shards=tuple(facts[index] for index in shards),
            forgotten=before.forgotten + documents + erased,
            contamination=before.contamination,
            versions=before.versions,
        )
        for split in SPLITS:
            if (held := before.size(split).documents) and not manifest.size(split).documents:
                raise StageError(
                    f"split {split} would be empty: all of its {held} documents are to be removed; list fewer "
                    "documents, or add some to the corpus"
                )
        (ctx.out / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
        changed = sum(facts[index] != before.shards[index] for index in shards)
        ctx.metrics({"removed_documents": documents, "erased_ledger_rows": erased, "changed_shards": changed})
        ctx.note(
            f"{documents} documents removed, {erased} ledger rows erased, {changed} of {len(shards)} shards changed"
        )
        report(ctx, Corpus(ctx.out))
        return Corpus(ctx.out)
