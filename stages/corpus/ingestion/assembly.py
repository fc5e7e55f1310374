"""Assembles the corpus at the end of an ingestion: moves the shards, writes the manifest, reports to the user."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stages.artifacts.corpus import (
    FAMILIES,
    FAMILY_COLUMNS,
    MANIFEST,
    SAMPLE_COLUMNS,
    SAMPLES,
    Corpus,
    dropped_name,
    shard_name,
    warnings,
)
from stages.artifacts.manifest import SPLITS, Contamination, Manifest, ShardFacts, Tally
from stages.base import Context
from stages.corpus.ingestion.counts import Counts
from stages.corpus.ingestion.parquet_files import ROW_GROUP_ROWS, TableWriter, rows_of, schema
from stages.corpus.ingestion.reading import DROPPED, SAMPLED
from stages.corpus.ingestion.samples import Samples
from stages.corpus.ingestion.shards import Shard
from stages.corpus.ingestion.split_check import CheckSplits
from stages.corpus.ingestion.writing import FAMILIES as FAMILIES_OF_SHARD
from stages.corpus.ingestion.writing import split_file
from stages.corpus.source import Source

# The packages that determine the bytes of a corpus, besides bloomline.
PACKAGES = ("bloomline", "pyarrow", "warcio", "trafilatura", "ftfy", "pycld2", "rensa", "datasketch", "regex")

Facts = Mapping[str, Any]


def assemble(
    ctx: Context,
    sources: Mapping[str, Source],
    shards: Sequence[Shard],
    read: Sequence[Facts],
    written: Sequence[Facts],
    outputs: Sequence[Path],
    samples: Samples,
    contamination: Mapping[str, Contamination],
    check: CheckSplits,
) -> Corpus:
    """Assemble the corpus from the facts and outputs of its shards. `samples` is empty, of the size that is wanted.

    Raises StageError if `check` does.
    """
    counts = Counts(row for facts in (*read, *written) for row in facts["counts"])
    manifest = Manifest(
        sources={name: sources[name].facts() for name in sorted(sources)},
        cells=counts.cells(),
        shards=tuple(_shard_facts(shard, facts) for shard, facts in zip(shards, written, strict=True)),
        contamination=contamination,
        versions=_versions(),
    )
    documents = {split: manifest.size(split).documents for split in SPLITS}
    check(documents, manifest.total.dropped)  # again, because cuts may have left too little of the last documents
    _move_shards(ctx.out, outputs, samples)
    (ctx.out / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
    report(ctx, Corpus(ctx.out))
    return Corpus(ctx.out)


def report(ctx: Context, corpus: Corpus) -> None:
    """Report metrics, warnings and the data card."""
    from stages.corpus.card.contents import card_of, summary
    from stages.corpus.card.html_page import html_page
    from stages.corpus.card.markdown_page import markdown_page

    manifest = corpus.manifest
    card = card_of(corpus)
    ctx.page("card.html", html_page(card))
    ctx.page("card.md", markdown_page(card))
    ctx.highlight("data card", summary(manifest.total))
    total = manifest.total
    ctx.metrics(
        {
            "read_megabytes": total.read.bytes / 1e6,
            "kept_megabytes": total.kept.bytes / 1e6,
            "kept_documents": total.kept.documents,
            **{f"{split}_megabytes": manifest.size(split).bytes / 1e6 for split in SPLITS},
            **{
                f"contaminated_{task.replace('/', '_')}": found.documents
                for task, found in manifest.contamination.items()
            },
            **{f"dropped_{reason}_megabytes": tally.bytes / 1e6 for reason, tally in total.dropped.items()},
        }
    )
    for warning in warnings(manifest):
        ctx.note(f"warning: {warning}")


def _shard_facts(shard: Shard, facts: Facts) -> ShardFacts:
    splits = {
        split: Tally(documents=documents, bytes=size)
        for split, (documents, size) in facts["splits"].items()
        if documents
    }
    return ShardFacts(source=shard.source, splits=splits, dropped=facts["dropped"])


def _move_shards(out: Path, outputs: Sequence[Path], samples: Samples) -> None:
    """Move the files of the shards into the artifact. After a kill, the shards that were moved are written again."""
    (out / "documents").mkdir()
    (out / "dropped").mkdir()
    for output in outputs:
        for row in rows_of(output / SAMPLED):
            samples.offer(row)
    with TableWriter(out / SAMPLES, SAMPLE_COLUMNS) as table:
        for sample in samples.rows():
            table.add(sample)
    _gather_families(out, outputs)
    for index, output in enumerate(outputs):
        for split in SPLITS:
            if (file := output / split_file(split)).exists():
                os.rename(file, out / shard_name(split, index))
        os.rename(output / DROPPED, out / dropped_name(index))


def _gather_families(out: Path, outputs: Sequence[Path]) -> None:
    """Write the families of all shards as one table, the members of a family one after the other."""
    import pyarrow as pa
    from pyarrow import parquet

    columns = schema(FAMILY_COLUMNS)
    found = [output / FAMILIES_OF_SHARD for output in outputs if (output / FAMILIES_OF_SHARD).exists()]
    table = pa.concat_tables([columns.empty_table(), *(parquet.read_table(file, schema=columns) for file in found)])
    order = [("rule", "ascending"), ("family", "ascending"), ("similarity", "descending"), ("id", "ascending")]
    parquet.write_table(table.sort_by(order), out / FAMILIES, compression="zstd", row_group_size=ROW_GROUP_ROWS)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
