"""The second phase: what becomes of each document, decided over the whole corpus and written down shard by shard."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.corpus.index import Index, Judge, Ruling, validation

if TYPE_CHECKING:
    import numpy as np

TRAIN, VALIDATION, FIRST_RULING = 0, 1, 2
COLUMNS = {"fate": "uint8", "value": "string"}  # TRAIN, VALIDATION, or a ruling from FIRST_RULING on, and its value


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


def decide(index: Index, judges: Sequence[Judge], validation_fraction: float, folder: Path) -> Decisions:
    """Ask the judges in turn, each of what those before it left, and write a file a shard into `folder`."""
    import numpy as np

    fates = np.where(validation(index, validation_fraction), VALIDATION, TRAIN).astype(np.uint8)
    kept = np.ones(len(index), bool)
    rulings = []
    for number, judge in enumerate(judges):
        ruling = judge(index, kept)
        kept[ruling.rows] = False
        fates[ruling.rows] = FIRST_RULING + number
        rulings.append(ruling)
    folder.mkdir(parents=True, exist_ok=True)
    values = _values(len(index), rulings)
    files = []
    for shard in range(len(index.starts) - 1):
        rows = slice(index.starts[shard], index.starts[shard + 1])
        files.append(_write(folder / f"{shard:05d}.arrow", fates[rows], values[rows]))
    return Decisions(tuple(files), tuple(Rule(found.operation, found.rule, found.threshold) for found in rulings))


def _values(count: int, rulings: Sequence[Ruling]) -> np.ndarray:
    import numpy as np

    values = np.full(count, None, object)
    for ruling in rulings:
        values[ruling.rows] = ruling.values
    return values


def _write(path: Path, fates: np.ndarray, values: np.ndarray) -> tuple[Path, str]:
    import pyarrow as pa

    from stages.corpus.tables import schema

    table = pa.table([pa.array(fates), pa.array(values, pa.string())], schema=schema(COLUMNS))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue()
    aside = path.with_suffix(".part")
    aside.write_bytes(data)
    os.replace(aside, path)
    return path, hashlib.sha256(data).hexdigest()
