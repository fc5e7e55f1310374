"""The end of an ingestion: the shards to their places, the manifest, and what a person is told of it."""

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
from stages.base import Context, StageError
from stages.corpus.ingestion.ledger import Counts, Samples
from stages.corpus.ingestion.parquet_files import ROW_GROUP_ROWS, TableWriter, rows_of, schema
from stages.corpus.ingestion.reading import DROPPED, SAMPLED
from stages.corpus.ingestion.shards import Shard
from stages.corpus.ingestion.writing import FAMILIES as FAMILIES_OF_SHARD
from stages.corpus.ingestion.writing import split_file
from stages.corpus.source import Source

# What decides the bytes of a corpus beside our own code.
PACKAGES = ("bloomline", "pyarrow", "warcio", "trafilatura", "ftfy", "pycld2", "rensa", "datasketch", "regex")

Facts = Mapping[str, Any]


def assemble(
    ctx: Context,
    sources: Mapping[str, Source],
    shards: Sequence[Shard],
    read: Sequence[Facts],
    written: Sequence[Facts],
    places: Sequence[Path],
    drawn: Samples,
    contamination: Mapping[str, Contamination],
) -> Corpus:
    """The corpus of shards that were read and written. `drawn`: for the samples. `contamination`: for the manifest.

    Raises StageError if a split is empty.
    """
    counts = Counts(row for facts in (*read, *written) for row in facts["counts"])
    manifest = Manifest(
        sources={name: sources[name].facts() for name in sorted(sources)},
        cells=counts.cells(),
        shards=tuple(_shard_facts(shard, facts) for shard, facts in zip(shards, written, strict=True)),
        contamination=contamination,
        versions=_versions(),
    )
    check_splits(manifest)
    _place(ctx.out, places, drawn)
    (ctx.out / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
    report(ctx, Corpus(ctx.out))
    return Corpus(ctx.out)


def check_splits(manifest: Manifest) -> None:
    """Raises StageError if a split is empty: nothing could be trained or measured."""
    total = manifest.total
    for split in SPLITS:
        if not manifest.size(split).documents:
            raise StageError(
                f"split {split} is empty: {total.kept.documents} of {total.read.documents} documents were kept; "
                "widen the sources, or change validation_fraction, limit_bytes or what is removed"
            )


def report(ctx: Context, corpus: Corpus) -> None:
    """Metrics, warnings and the data card."""
    from stages.corpus.card.contents import card_of, markdown, summary
    from stages.corpus.card.html_page import page

    manifest = corpus.manifest
    card = card_of(corpus)
    ctx.page("card.html", page(card))
    ctx.page("card.md", markdown(card))
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


def _place(out: Path, places: Sequence[Path], drawn: Samples) -> None:
    """Move the shards' files into the artifact. What is moved when this is killed is written again."""
    (out / "documents").mkdir()
    (out / "dropped").mkdir()
    for place in places:
        for row in rows_of(place / SAMPLED):
            drawn.offer(row)
    with TableWriter(out / SAMPLES, SAMPLE_COLUMNS) as file:
        for row in drawn.rows():
            file.add(row)
    _gather_families(out, places)
    for index, place in enumerate(places):
        for split in SPLITS:
            if (file := place / split_file(split)).exists():
                os.rename(file, out / shard_name(split, index))
        os.rename(place / DROPPED, out / dropped_name(index))


def _gather_families(out: Path, places: Sequence[Path]) -> None:
    """The families of all shards as one table, each together."""
    import pyarrow as pa
    from pyarrow import parquet

    columns = schema(FAMILY_COLUMNS)
    found = [place / FAMILIES_OF_SHARD for place in places if (place / FAMILIES_OF_SHARD).exists()]
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
