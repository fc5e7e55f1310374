"""Ingests documents: read, filter, remove duplicates, cap, split. Every byte read is accounted for.

Two passes: the first reads and filters, spilling what passes to disk; the second, once all is known, writes what
stays in the order of ids. The result depends on the content alone, never on the order or place of reading.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, ClassVar, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from stages.artifacts.corpus import MANIFEST, SPLITS, Corpus, Document, Manifest
from stages.base import Context, Stage, StageError, Stopped
from stages.corpus.files import Files
from stages.corpus.installed import Installed
from stages.corpus.ledger import Ledger
from stages.corpus.selection import Index, Verdict
from stages.corpus.source import Candidate
from stages.corpus.spill import Spill


class IngestCorpus(Stage):
    """Documents from what is installed, or from files. Leaves Corpus."""

    headline: ClassVar[str | None] = "kept_megabytes"

    source: Annotated[Installed | Files, Field(discriminator="reader")]
    min_characters: NonNegativeInt = 100  # of a text without the white space around it
    max_bytes: PositiveInt = 1_000_000  # of a text
    max_replacement_ratio: float = Field(default=0.001, ge=0, le=1)  # U+FFFD per character
    limit_bytes: PositiveInt | None = None  # of all that is kept; null: no cap
    validation_fraction: float = Field(default=0.05, gt=0, lt=1)  # of documents, by hash

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.min_characters > self.max_bytes:
            raise ValueError(f"min_characters {self.min_characters} is more than max_bytes {self.max_bytes}")
        return self

    def run(self, ctx: Context) -> Corpus:
        index, ledger, spill = Index(), Ledger(), Spill(ctx.scratch / "spill")
        self._read(ctx, index, ledger, spill)
        manifest = self._write(ctx, index, ledger, spill)
        for split, facts in manifest.splits.items():
            if not facts.size.documents:
                raise StageError(
                    f"split {split} is empty: {manifest.total.kept.documents} of {manifest.total.read.documents} "
                    "documents were kept; widen the source, or change validation_fraction or limit_bytes"
                )
        (ctx.out / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
        self._report(ctx, manifest)
        return Corpus(ctx.out)

    def _read(self, ctx: Context, index: Index, ledger: Ledger, spill: Spill) -> None:
        from stages.corpus.filters import decode, normalised

        parts = self.source.parts()
        for done, part in enumerate(parts):
            if ctx.stopping():
                raise Stopped
            ctx.progress(done, len(parts), "files", documents=len(index))
            for candidate in self.source.read(part, self.max_bytes):  # type: ignore[arg-type]
                text, reason = None, candidate.refused
                if reason is None:
                    text, reason = decode(
                        candidate.data,
                        min_characters=self.min_characters,
                        max_replacement_ratio=self.max_replacement_ratio,
                    )
                if text is None:
                    ledger.drop(candidate.source, str(reason), candidate.size)
                    continue
                document = _document(candidate, text)
                key = hashlib.sha256(normalised(text).encode()).digest()[:16]
                index.add(bytes.fromhex(document.id), key, candidate.size)
                spill.add(document)
        ctx.progress(len(parts), len(parts), "files", documents=len(index))

    def _write(self, ctx: Context, index: Index, ledger: Ledger, spill: Spill) -> Manifest:
        from stages.corpus.shards import ShardWriter

        writers = {split: ShardWriter(ctx.out, split) for split in SPLITS}
        verdicts = index.verdicts(self.limit_bytes, self.validation_fraction)
        for done, (document, verdict) in enumerate(zip(spill.sorted(), verdicts, strict=True)):
            if done % 1024 == 0:
                if ctx.stopping():
                    raise Stopped
                ctx.progress(done, len(index), "documents")
            size = len(document.text.encode())
            if verdict in (Verdict.DUPLICATE, Verdict.OVER_LIMIT):
                ledger.drop(document.source, Verdict(verdict).name.lower(), size)
            else:
                ledger.keep(document.source, document.license, size)
                writers["train" if verdict == Verdict.TRAIN else "validation"].add(document, size)
        return ledger.manifest({split: writer.close() for split, writer in writers.items()})

    def _report(self, ctx: Context, manifest: Manifest) -> None:
        from stages.corpus.figures import flow_figure

        total = manifest.total
        ctx.metrics(
            {
                "read_megabytes": total.read.bytes / 1e6,
                "kept_megabytes": total.kept.bytes / 1e6,
                "kept_documents": total.kept.documents,
                **{f"{split}_megabytes": facts.size.bytes / 1e6 for split, facts in manifest.splits.items()},
                **{f"dropped_{reason}_megabytes": tally.bytes / 1e6 for reason, tally in total.dropped.items()},
            }
        )
        ctx.figure("corpus", flow_figure(manifest))


def _document(candidate: Candidate, text: str) -> Document:
    digest = hashlib.sha256(candidate.data).hexdigest()
    identity = "\0".join((candidate.source, candidate.package, candidate.path, str(candidate.row), digest))
    return Document(
        id=hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32],
        text=text,
        source=candidate.source,
        path=candidate.path.encode("utf-8", "replace").decode(),
        package=candidate.package,
        license=candidate.license,
        language=candidate.language,
        digest=digest,
    )
