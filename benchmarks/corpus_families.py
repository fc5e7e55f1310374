"""Measures how long it takes to find the families of similar documents with 1, 2, 4, ... worker processes.

The documents are signatures alone (no text is read): families of documents that share most values. The labels
of all numbers of workers are compared; they have to be equal.

    python -m benchmarks.corpus_families --documents 1000000 --workers 1 2 4 8
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stages.corpus.deduplication.families import Comparable, find_families
from stages.corpus.deduplication.minhash import SIGNATURES, Signatures
from stages.corpus.ingestion.drafts import Drafts

BANDS, ROWS, SHARDS = 25, 5, 8  # the bands and rows are the defaults of the rule `near`
CHANGED = 0.05  # the share of the values of a signature in which a member differs from the first one of its family
SIMILARITY = 0.6
MEMORY_BYTES = 1 << 30


def measure(documents: int, workers: Sequence[int], folder: Path) -> dict[int, float]:
    """Seconds by number of workers."""
    folders, starts = _signatures(documents, folder)
    members = np.arange(documents)
    found: dict[int, float] = {}
    first: np.ndarray | None = None
    for count in workers:
        with ProcessPoolExecutor(count) as pool:
            drafts = Drafts((), (), folder / f"workers-{count}", MEMORY_BYTES, _unused, partial(_spread, pool))
            compared = Comparable("near", "near", partial(Signatures, folders, starts, BANDS, ROWS), BANDS)
            started = time.perf_counter()
            labels = find_families(members, compared, SIMILARITY, drafts)
            found[count] = time.perf_counter() - started
        if first is not None and (labels != first).any():
            raise RuntimeError(f"{count} workers find other families than {workers[0]}")
        first = labels
    return found


def _signatures(documents: int, folder: Path) -> tuple[list[Path], np.ndarray]:
    draw = np.random.default_rng(0)
    family = np.sort(draw.integers(0, documents // 2, documents))
    values = draw.integers(0, 1 << 32, (family.max() + 1, BANDS * ROWS), np.uint32)[family]
    changed = draw.random(values.shape, np.float32) < CHANGED
    values[changed] = draw.integers(0, 1 << 32, int(changed.sum()), np.uint32)
    values = values[draw.permutation(documents)]
    starts = np.linspace(0, documents, SHARDS + 1).astype(np.int64)
    folders = []
    for shard in range(SHARDS):
        folders.append(folder / f"{shard:05d}")
        folders[-1].mkdir()
        some = values[starts[shard] : starts[shard + 1]].reshape(-1, BANDS, ROWS)
        some.transpose(1, 0, 2).tofile(folders[-1] / SIGNATURES)
    return folders, starts


def _spread(
    pool: ProcessPoolExecutor, phase: str, function: Callable[[Any], object], work: Sequence[Any], spread: bool
) -> None:
    for _ in pool.map(function, work):
        pass


def _unused(phase: str, function: Callable[[Any], Any], work: Sequence[Any]) -> list[Any]:
    raise NotImplementedError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(asked.documents, asked.workers, Path(folder))
    print("| workers | seconds | documents per second |\n|---|---|---|")
    for count, seconds in found.items():
        print(f"| {count} | {seconds:.1f} | {asked.documents / seconds:,.0f} |")


if __name__ == "__main__":
    main()
