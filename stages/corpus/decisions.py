"""The second phase: what becomes of each document, decided over the whole corpus and written down shard by shard.

A shard's file has a row a document: its fate, the value that the ledger tells of that, the passages that are cut out
of its text, and the families of like documents that it is of.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.manifest import Contamination
from stages.corpus.index import Index, Judge, Ruling
from stages.corpus.splitting import Split

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

TRAIN, VALIDATION, FIRST_RULING = 0, 1, 2  # fates; from FIRST_RULING on: dropped by that ruling
CUT = ("ruling", "start", "stop")
FAMILY = ("ruling", "first", "similarity")  # of the one that stays: its id, of itself too


@dataclass(frozen=True)
class Rule:
    """What the ledger tells of every document that a ruling drops."""

    operation: str
    rule: str
    threshold: str


@dataclass(frozen=True)
class Decisions:
    """Where the fates of each shard's documents are written, with the hash of that, and the rules they refer to."""

    files: tuple[tuple[Path, str], ...]
    rules: tuple[Rule, ...]
    contamination: Mapping[str, Contamination]  # by evaluation task


def decide(index: Index, judges: Sequence[Judge], split: Split, folder: Path) -> Decisions:
    """Ask the judges in turn, each of what those before it left, split the rest, write a file a shard into `folder`."""
    import numpy as np
    import pyarrow as pa

    fates = np.zeros(len(index), np.uint8)
    kept = np.ones(len(index), bool)
    values = np.full(len(index), None, object)
    rulings = []
    for number, judge in enumerate(judges):
        ruling = judge(index, kept)
        kept[ruling.rows] = False
        fates[ruling.rows] = FIRST_RULING + number
        values[ruling.rows] = ruling.values
        rulings.append(ruling)
    fates[kept] = np.where(split(index, kept)[kept], VALIDATION, TRAIN)
    table = pa.table({
        "fate": fates,
        "value": pa.array(values, pa.string()),
        "cuts": _grouped(len(index), *_cuts(rulings)),
        "families": _grouped(len(index), *_families(index, rulings)),
    })  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for shard in range(len(index.starts) - 1):
        start, stop = index.starts[shard : shard + 2].tolist()
        files.append(_write(folder / f"{shard:05d}.arrow", table.slice(start, stop - start)))
    return Decisions(
        files=tuple(files),
        rules=tuple(Rule(found.operation, found.rule, found.threshold) for found in rulings),
        contamination={task: found for ruling in rulings for task, found in ruling.contamination.items()},
    )


def _cuts(rulings: Sequence[Ruling]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The row of every cut, and the columns that tell of it."""
    import numpy as np

    found = [(number, ruling.cuts) for number, ruling in enumerate(rulings) if ruling.cuts is not None]
    none = np.empty(0, np.int64)
    rows = np.concatenate([none, *(cuts.rows for _, cuts in found)])
    columns = (
        np.concatenate([none, *(np.full(len(cuts.rows), number) for number, cuts in found)]),
        np.concatenate([none, *(cuts.starts for _, cuts in found)]),
        np.concatenate([none, *(cuts.stops for _, cuts in found)]),
    )
    return rows, dict(zip(CUT, columns, strict=True))


def _families(index: Index, rulings: Sequence[Ruling]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The row of every member of a family, that which stays included, and the columns that tell of it."""
    import numpy as np

    rows, numbers, first, similarity = ([np.empty(0, kind)] for kind in (np.int64, np.int64, np.int64, np.float64))
    for number, ruling in enumerate(rulings):
        if ruling.families is not None:
            stay = np.unique(ruling.families.first)
            rows += [stay, ruling.families.rows]
            numbers.append(np.full(len(stay) + len(ruling.families.rows), number))
            first += [stay, ruling.families.first]
            similarity += [np.ones(len(stay)), ruling.families.similarity]
    ids = np.array(index.ids(np.concatenate(first)), object)
    return np.concatenate(rows), dict(
        zip(FAMILY, (np.concatenate(numbers), ids, np.concatenate(similarity)), strict=True)
    )


def _grouped(count: int, rows: np.ndarray, columns: dict[str, np.ndarray]) -> pa.Array:
    """For each of `count` rows the list of what is told of it: the entries of `columns` at the places of `rows`."""
    import numpy as np
    import pyarrow as pa

    order = np.argsort(rows, kind="stable")
    offsets = np.searchsorted(rows[order], np.arange(count + 1))
    kinds = {"first": pa.string(), "similarity": pa.float64()}
    arrays = [pa.array(column[order], kinds.get(name, pa.int64())) for name, column in columns.items()]
    return pa.LargeListArray.from_arrays(offsets.astype(np.int64), pa.StructArray.from_arrays(arrays, list(columns)))


def _write(path: Path, table: pa.Table) -> tuple[Path, str]:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue()
    aside = path.with_suffix(".part")
    aside.write_bytes(data)
    os.replace(aside, path)
    return path, hashlib.sha256(data).hexdigest()
