"""What the first phase left, as the second sees it: drafts that can be measured shard by shard, side by side.

A measure reads the drafts of one shard and writes what a decision over the whole corpus needs to know of them. Like
any work on a shard it is done once, and what a killed worker left of it is never taken for done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base import Config
from stages.corpus.ingestion.completion_markers import clear_leftovers, finish
from stages.corpus.ingestion.parquet_files import use_flat_memory
from stages.corpus.ingestion.shard_progress import telling
from stages.corpus.readers.read_position import following, position
from stages.corpus.readers.reader import digest_of

if TYPE_CHECKING:
    import pyarrow as pa


class Measure(Config):
    """What is to be known of every draft. Its fields are part of what comes out."""

    def measure(self, drafts: Iterator[pa.RecordBatch], folder: Path) -> Mapping[str, Any]:
        """Write files about the drafts of a shard into `folder`; returns facts (JSON values)."""
        raise NotImplementedError


@dataclass(frozen=True)
class MeasureShard:
    """What a worker needs to know to measure one shard. Plain values."""

    drafts: Path
    measure: Measure
    place: Path


def measure_shard(work: MeasureShard) -> dict[str, Any]:
    """The facts of a shard that was measured, now or before."""
    inputs = {"measure": work.measure.model_dump(mode="json"), "version": work.measure.version}
    use_flat_memory()
    with telling(work.place, share_of(work.drafts)):
        return finish(work.place, inputs, lambda folder: work.measure.measure(batches(work.drafts), folder))


Each = Callable[[str, Callable[[MeasureShard], Mapping[str, Any]], Sequence[MeasureShard]], list[Mapping[str, Any]]]


@dataclass(frozen=True)
class Drafts:
    """The drafts of all shards, in the order of the index."""

    files: Sequence[Path]  # a stream of Arrow batches each
    sources: Sequence[str]  # of each shard
    folder: Path  # for what is measured: durable
    memory_bytes: int  # about what a decision may take, beside what it holds of every document
    each: Each  # runs a function on every item, side by side; the first argument says what is being done

    def measured(self, what: str, measure: Measure) -> tuple[list[Path], list[Mapping[str, Any]]]:
        """The folders that a measure filled, one a shard, and its facts. `what` is told of the work."""
        place = self.folder / f"{what}-{digest_of(measure.model_dump(mode='json'))[:8]}"
        clear_leftovers(place)
        work = [MeasureShard(file, measure, place / f"{shard:05d}") for shard, file in enumerate(self.files)]
        return [item.place for item in work], self.each(what, measure_shard, work)


def share_of(path: Path) -> Callable[[], float]:
    """How much of a file of drafts has been read, 0 to 1."""
    size = max(path.stat().st_size, 1)
    return lambda: position() / size


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The drafts of a shard, some in memory at a time."""
    import pyarrow as pa

    with pa.OSFile(os.fspath(path)) as file, following(file.tell), pa.ipc.open_stream(file) as stream:
        yield from stream


def texts(drafts: Iterator[pa.RecordBatch], limit: int = 1 << 16) -> Iterator[list[str]]:
    """The texts of drafts in groups of about `limit` characters: as many as the cache of a processor holds well."""
    group: list[str] = []
    size = 0
    for batch in drafts:
        for text in batch["text"].to_pylist():
            group.append(text)
            size += len(text)
            if size >= limit:
                yield group
                group, size = [], 0
    if group:
        yield group
