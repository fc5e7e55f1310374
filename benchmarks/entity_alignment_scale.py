"""The search of entity alignment among very many entities: time and memory, exact and approximate.

The vectors are memory maps of two files: unit vectors around random centres, those of linked entities near each other.
They are in a space of 32 dimensions, as a trained model uses fewer dimensions than its vectors have.
A whole exact evaluation takes time with the square of the entities, so that a number of queries is measured, among all
candidates, and the time of the whole is computed from it.
"""

from __future__ import annotations

import resource
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stages import csls
from stages.csls import Array, Selection
from stages.entity_alignment import approximate

ENTITIES_A_CENTRE, DIMENSIONS, WRITTEN_ROWS = 50, 32, 1 << 14
SPREAD, NOISE = 0.7, 0.55  # of entities around their centre, and of the two vectors of an entity; the centres' is 1
NEIGHBOURS, FOUND = 3, 10


def scale(options: Namespace) -> Iterator[dict[str, Any]]:
    """A row for each part of an evaluation of `entities` links at this width, from left to right."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        left, right = _vectors(Path(folder), options.entities, options.width)
        yield from _measured(left, right, options.queries)


def _measured(left: Selection, right: Selection, queries: int) -> Iterator[dict[str, Any]]:
    count = len(left)
    chosen = np.sort(np.random.default_rng(1).permutation(count)[:queries])
    some, began = Selection(left.vectors, left.rows[chosen]), time.process_time()

    def row(part: str, whole: float, **more: float) -> dict[str, Any]:
        """`whole`: times this part that an evaluation in both directions takes."""
        nonlocal began
        seconds, began = time.process_time() - began, time.process_time()
        return {"part": part, "cpu_seconds": seconds, "whole_cpu_hours": seconds * whole / 3600, **_memory(), **more}

    of_some, _ = csls.densities(some, right, NEIGHBOURS)
    yield row("densities, exact", count / queries)
    zeros = np.zeros(count, np.float32)
    pairs = np.stack([np.arange(queries), chosen], axis=1)
    cosine_ranks = csls.ranks(some, right, zeros[:queries], zeros, pairs)
    yield row("ranks, exact", 2 * count / queries, hits_at_1=float((cosine_ranks <= 1).mean()))
    exact, _ = csls.nearest(some, right, zeros[:queries], zeros, FOUND)
    yield row("ten nearest, exact", 0)
    index = approximate.Index(right)
    yield row("index", 2)
    found = [index.nearest(some[rows], approximate.DEPTH) for rows in _slices(queries, approximate.SEARCHED_ROWS)]
    places, cosines = (np.concatenate(parts) for parts in zip(*found, strict=True))
    recall = np.mean([len(np.intersect1d(*both)) / FOUND for both in zip(places[:, :FOUND], exact, strict=True)])
    density_error = np.abs(cosines[:, :NEIGHBOURS].mean(axis=1) - of_some).mean()
    hits = float((places[:, 0] == chosen).mean())
    more = {"recall_at_10": float(recall), "hits_at_1": hits, "mean_error_of_density": float(density_error)}
    yield row("search, approximate", 2 * count / queries, **more)


def _vectors(folder: Path, count: int, width: int) -> tuple[Selection, Selection]:
    """Two tables on disk, and the rows of linked entities in them: entity i of one side belongs to i of the other."""
    generator = np.random.default_rng(0)
    inner = min(DIMENSIONS, width)
    turned = np.linalg.qr(_normal(generator, width, inner))[0].T  # [inner, width], orthonormal rows
    centres = _normal(generator, max(1, count // ENTITIES_A_CENTRE), inner)
    paths = folder / "left.npy", folder / "right.npy"
    tables = [np.lib.format.open_memmap(path, "w+", np.float32, (count, width)) for path in paths]
    for rows in _slices(count, WRITTEN_ROWS):
        size = min(rows.stop, count) - rows.start
        own = centres[generator.integers(len(centres), size=size)] + SPREAD * _normal(generator, size, inner)
        for table in tables:
            noisy = own + NOISE * _normal(generator, size, inner)
            table[rows] = noisy / np.linalg.norm(noisy, axis=1, keepdims=True) @ turned
    for table in tables:
        table.flush()
    del tables
    left, right = (np.load(path, mmap_mode="r") for path in paths)
    return Selection(left, np.arange(count)), Selection(right, np.arange(count))


def _normal(generator: np.random.Generator, count: int, width: int) -> Array:
    return generator.standard_normal((count, width), np.float32)


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def _memory() -> dict[str, int]:
    """The peak of the process, and its own memory now. The rest are pages of mapped files, which can be dropped."""
    status = Path("/proc/self/status").read_text()
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_memory_mib": peak // 1024, "own_memory_mib": own // 1024}


def table(rows: list[dict[str, Any]]) -> str:
    """One line a part."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(key.replace("_", " ") for key in keys) + " |", "|" + "---|" * len(keys)]
    for row in rows:
        cells = (row.get(key, "") for key in keys)
        lines.append(
            "| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |"
        )
    return "\n".join(lines)
