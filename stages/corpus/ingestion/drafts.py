"""The drafts that the first phase wrote, as the second phase reads them: measured shard by shard, in parallel.

A measure reads the drafts of one shard and writes what a decision over the whole corpus needs to know of them. Like all
work on a shard it runs at most once, and a killed worker's partial output is never used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base import Config
from stages.corpus.ingestion.completion_markers import remove_partial_folders, run_once
from stages.corpus.ingestion.parquet_files import use_flat_memory
from stages.corpus.ingestion.shard_progress import reporting_progress
from stages.corpus.readers.read_position import current_position, tracking_position
from stages.corpus.readers.reader import digest_of

if TYPE_CHECKING:
    import pyarrow as pa


class Measure(Config):
    """Something to measure of every draft. Its fields are part of what the result depends on."""

    def measure(self, drafts: Iterator[pa.RecordBatch], folder: Path) -> Mapping[str, Any]:
        """Write files about the drafts of a shard into `folder`; returns facts (JSON values)."""
        raise NotImplementedError


@dataclass(frozen=True)
class MeasureShard:
    """What a worker needs to measure one shard. Plain values: it is sent to another process."""

    drafts: Path
    measure: Measure
    output: Path


def measure_shard(work: MeasureShard) -> dict[str, Any]:
    """Measure a shard unless that is complete; returns the facts."""
    inputs = {"measure": work.measure.model_dump(mode="json"), "version": work.measure.version}
    use_flat_memory()
    with reporting_progress(work.output, share_of(work.drafts)):
        return run_once(work.output, inputs, lambda folder: work.measure.measure(batches(work.drafts), folder))


MapShards = Callable[
    [str, Callable[[MeasureShard], Mapping[str, Any]], Sequence[MeasureShard]], list[Mapping[str, Any]]
]


# Applies a function to every item; the first argument names the phase, the last one says whether workers are worth it.
MapWork = Callable[[str, Callable[[Any], Mapping[str, Any]], Sequence[Any], bool], None]


@dataclass(frozen=True)
class Drafts:
    """The drafts of all shards, in the order of the index."""

    files: Sequence[Path]  # an Arrow stream for each shard
    sources: Sequence[str]  # of each shard
    folder: Path  # for measurements: durable
    memory_bytes: int  # about what a decision may use, in addition to what it holds for every document
    map_shards: MapShards  # applies a function to every item, in parallel; the first argument names the phase
    map_work: MapWork  # as `map_shards`, for work that is not divided by shard

    def measured(self, phase: str, measure: Measure) -> tuple[list[Path], list[Mapping[str, Any]]]:
        """The folder that a measure filled for each shard, and its facts. `phase` is shown while it runs."""
        folder = self.folder / f"{phase}-{digest_of(measure.model_dump(mode='json'))[:8]}"
        remove_partial_folders(folder)
        work = [MeasureShard(file, measure, folder / f"{shard:05d}") for shard, file in enumerate(self.files)]
        return [item.output for item in work], self.map_shards(phase, measure_shard, work)


def share_of(path: Path) -> Callable[[], float]:
    """A function that gives the share of a file of drafts that has been read, 0 to 1."""
    size = max(path.stat().st_size, 1)
    return lambda: current_position() / size


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The drafts of a shard, one batch in memory at a time."""
    import pyarrow as pa

    with pa.OSFile(os.fspath(path)) as file, tracking_position(file.tell), pa.ipc.open_stream(file) as stream:
        yield from stream


def texts(drafts: Iterator[pa.RecordBatch], limit: int = 1 << 16) -> Iterator[list[str]]:
    """The texts of drafts in groups of about `limit` characters, which fit into a processor's cache."""
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
