"""The second phase: what becomes of each document, decided over the whole corpus and written down shard by shard.

A shard's file has a row a document: its fate, the value that the ledger tells of that, the passages that are cut out
of its text, and the families of like documents that it is of.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.manifest import Contamination
from stages.corpus.ingestion.document_index import Cuts, Families, Index, Judge, Ruling
from stages.corpus.ingestion.validation_split import Split

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
    rulings = []
    for number, judge in enumerate(judges):
        ruling = judge(index, kept)
        kept[ruling.rows] = False
        fates[ruling.rows] = FIRST_RULING + number
        rulings.append(ruling)
    fates[kept] = np.where(split(index, kept, _lost(len(index), rulings))[kept], VALIDATION, TRAIN)
    told = [_Told.of(ruling) for ruling in rulings]
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for shard, (start, stop) in enumerate(pairwise(index.starts.tolist())):
        here = [one.within(start, stop) for one in told]
        values = np.full(stop - start, None, object)
        for one in here:
            values[one.dropped - start] = one.values
        table = pa.table({
            "fate": fates[start:stop],
            "value": pa.array(values, pa.string()),
            "cuts": _grouped(start, stop, *_cuts(here)),
            "families": _grouped(start, stop, *_families(index, here)),
        })  # fmt: skip
        files.append(_write(folder / f"{shard:05d}.arrow", table))
    return Decisions(
        files=tuple(files),
        rules=tuple(Rule(found.operation, found.rule, found.threshold) for found in rulings),
        contamination={task: found for ruling in rulings for task, found in ruling.contamination.items()},
    )


def _lost(count: int, rulings: Sequence[Ruling]) -> np.ndarray:
    """The bytes that are cut out of each row at most: what two rulings cut counts twice."""
    import numpy as np

    lost = np.zeros(count, np.int64)
    for ruling in rulings:
        if ruling.cuts is not None:
            np.add.at(lost, ruling.cuts.rows, ruling.cuts.stops - ruling.cuts.starts)
    return lost


@dataclass(frozen=True)
class _Told:
    """What a ruling tells, in the order of rows."""

    ruling: Ruling
    order: np.ndarray  # of the places in ruling.rows
    rows: np.ndarray
    members: np.ndarray  # of families, those that stay included: rows
    first: np.ndarray
    similarity: np.ndarray

    @classmethod
    def of(cls, ruling: Ruling) -> _Told:
        import numpy as np

        order = np.argsort(ruling.rows, kind="stable")
        none = np.empty(0, np.int64)
        families = ruling.families or Families(none, none, np.empty(0))
        stay = np.unique(families.first)
        members, first = np.append(stay, families.rows), np.append(stay, families.first)
        similarity = np.append(np.ones(len(stay)), families.similarity)
        by_row = np.argsort(members, kind="stable")
        return cls(ruling, order, ruling.rows[order], members[by_row], first[by_row], similarity[by_row])

    def within(self, start: int, stop: int) -> _Here:
        """What it tells of the rows [start, stop)."""
        import numpy as np

        dropped, members = (slice(*np.searchsorted(rows, (start, stop))) for rows in (self.rows, self.members))
        cuts = self.ruling.cuts
        cut = slice(0) if cuts is None else slice(*np.searchsorted(cuts.rows, (start, stop)))
        none = np.empty(0, np.int64)
        return _Here(
            dropped=self.rows[dropped],
            values=self.ruling.values(self.order[dropped]),
            cuts=Cuts(none, none, none) if cuts is None else Cuts(cuts.rows[cut], cuts.starts[cut], cuts.stops[cut]),
            families=Families(self.members[members], self.first[members], self.similarity[members]),
        )


@dataclass(frozen=True)
class _Here:
    """What a ruling tells of the documents of one shard."""

    dropped: np.ndarray  # rows
    values: Sequence[str]  # of these
    cuts: Cuts
    families: Families  # with those that stay


def _cuts(told: Sequence[_Here]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The row of every cut, and the columns that tell of it."""
    import numpy as np

    numbers = np.repeat(np.arange(len(told)), [len(one.cuts.rows) for one in told])
    rows, starts, stops = (
        np.concatenate([np.empty(0, np.int64), *(getattr(one.cuts, name) for one in told)])
        for name in ("rows", "starts", "stops")
    )
    return rows, dict(zip(CUT, (numbers, starts, stops), strict=True))


def _families(index: Index, told: Sequence[_Here]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The row of every member of a family, and the columns that tell of it."""
    import numpy as np

    none = np.empty(0, np.int64)
    numbers = np.repeat(np.arange(len(told)), [len(one.families.rows) for one in told])
    first = index.ids(np.concatenate([none, *(one.families.first for one in told)]))
    similarity = np.concatenate([np.empty(0), *(one.families.similarity for one in told)])
    rows = np.concatenate([none, *(one.families.rows for one in told)])
    return rows, dict(zip(FAMILY, (numbers, np.array(first, object), similarity), strict=True))


def _grouped(start: int, stop: int, rows: np.ndarray, columns: dict[str, np.ndarray]) -> pa.Array:
    """For each of the rows [start, stop) the list of what is told of it: the entries of `columns` at its places."""
    import numpy as np
    import pyarrow as pa

    order = np.argsort(rows, kind="stable")
    offsets = np.searchsorted(rows[order], np.arange(start, stop + 1))
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
