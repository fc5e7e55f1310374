"""The search of entity alignment among very many entities: time and memory, exact and approximate.

The vectors are memory maps of two files: unit vectors around random centres, those of linked entities near each other.
They are in a space of 32 dimensions, as a trained model uses fewer dimensions than its vectors have.
A whole exact evaluation takes time with the square of the entities, so that a number of queries is measured, among all
candidates, and the time of the whole is computed from it. The evaluation step as a whole, with the pair and the vectors
read from their artifacts, runs in a process by itself, whose peak of memory is that of the step.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np

from stages import csls
from stages.csls import Array, Selection
from stages.entity_alignment import alignment, approximate, graph_pair
from stages.entity_alignment.evaluate import EvaluateEntityAlignment
from stages.entity_alignment.graphs import SPLITS, Pair
from stages.entity_alignment.settings import ModelSettings, TrainingSettings

ENTITIES_A_CENTRE, DIMENSIONS, WRITTEN_ROWS = 50, 32, 1 << 14
SPREAD, NOISE = 0.7, 0.55  # of entities around their centre, and of the two vectors of an entity; the centres' is 1
NEIGHBOURS, FOUND = 3, 10


def scale(options: Namespace) -> Iterator[dict[str, Any]]:
    """A row for each part of an evaluation of `entities` links at this width, from left to right."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        left, right = _vectors(Path(folder), options.entities, options.width)
        if options.step is None:
            yield from _measured(left, right, options.queries)
            return
        _artifacts(Path(folder), left, right)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            yield pool.apply(_step, (folder, options.step))


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


def _artifacts(folder: Path, left: Selection, right: Selection) -> None:
    """A pair with three triples an entity and names as long as DBpedia's, and its alignment: `pair`, `alignment`."""
    import torch

    count = len(left)
    names = [[f"http://dbpedia.org/resource/{side}_{one:012d}" for one in range(count)] for side in ("left", "right")]
    generator = np.random.default_rng(2)
    heads = np.repeat(np.arange(2 * count), 3)
    tails = generator.integers(count, size=len(heads)) + count * (heads >= count)
    ids = np.arange(count)
    pair = Pair(
        entities=(names[0], names[1]), labels=(names[0], names[1]),
        triples=np.column_stack([heads, generator.integers(1000, size=len(heads)), tails]),
        attributes=np.empty((0, 2), np.int64), links=np.column_stack([ids, ids + count]),
        splits=np.full(count, SPLITS.index("test")), vectors={}, corrupted={},
    )  # fmt: skip
    for name in ("pair", "alignment"):
        (folder / name).mkdir()
    graph_pair.write(folder / "pair", pair, graph_pair.facts_of(pair, "made"))
    facts = alignment.AlignmentFacts(
        model=ModelSettings(fusion="names"), training=TrainingSettings(), modalities=("graph", "relation"),
        entities=(count, count), width=left.vectors.shape[1], train_pairs=0, promoted_pairs=0, best_epoch=0, losses=(),
        selections=(),
    )  # fmt: skip
    tensors = {side: torch.from_numpy(np.asarray(table.vectors)) for side, table in (("left", left), ("right", right))}
    for side in ("left", "right"):
        tensors |= {f"{side}_weights": torch.full((count, 2), 0.5), f"{side}_densities": torch.zeros(count)}
    labels = {"left": names[0], "right": names[1], "left_labels": names[0], "right_labels": names[1]}
    alignment.write(folder / "alignment", facts, labels, tensors, None)


def _step(folder: str, search: Literal["exact", "approximate"]) -> dict[str, Any]:
    """The evaluation step on the artifacts in a folder: time, memory, what it reports."""
    metrics: dict[str, float] = {}

    def ignore(*_: Any, **__: Any) -> None:
        pass

    out = Path(folder) / "report"
    out.mkdir()
    context: Any = SimpleNamespace(
        out=out, metrics=metrics.update, note=ignore, progress=ignore, figure=ignore, page=ignore, highlight=ignore,
        stopping=lambda: False,
    )  # fmt: skip
    stage = EvaluateEntityAlignment.model_construct(
        graphs=graph_pair.GraphPair(Path(folder) / "pair"),
        alignment=alignment.EntityAlignment(Path(folder) / "alignment"),
        csls_neighbours=NEIGHBOURS, search=search, robustness=(), mistakes=100, seed=0,
    )  # fmt: skip
    started = time.process_time()
    stage.run(context)
    kept = ("hits_at_1", "hits_at_10", "mrr", "search_recall_at_10")
    seconds = time.process_time() - started
    return {
        "part": f"evaluation step, {search}", "cpu_seconds": seconds, **_memory(),
        **{name: metrics[name] for name in kept if name in metrics},
    }  # fmt: skip


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
