"""Families of similar documents: connected components of pairs. The member with the highest precedence is kept.

The pairs are found table by table, each by whichever worker is free. A worker reduces the pairs of its table to those
that connect something new, and connected components do not depend on the order in which pairs are added, so the
families are the same for any number of workers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stages.corpus.ingestion.completion_markers import remove_partial_folders, run_once
from stages.corpus.ingestion.document_index import DocumentIndex
from stages.corpus.ingestion.drafts import Drafts
from stages.corpus.ingestion.rule_decision import Families, RuleDecision
from stages.corpus.ingestion.spill import Spill

if TYPE_CHECKING:
    import numpy as np

NEIGHBOURS = (1, 2)  # distances, by precedence, of the documents of a bucket that are compared
PAIRS = 1 << 18  # compared at a time
FEW_MEMBERS = 1 << 15  # that are compared in this process: to start workers takes longer
PAIRS_FILE, SIMILARITIES_FILE = "pairs.bin", "similarities.bin"  # int64 [pairs, 2]; float64 [pairs]


class Comparison(Protocol):
    """How the documents of all shards are compared."""

    def keys(self, table: int, rows: np.ndarray) -> np.ndarray:
        """A hash of each row: rows with equal ones are compared. uint64 [rows]."""

    def similarity(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The similarity of pairs of rows, 0 to 1. float64 [rows]."""


@dataclass(frozen=True)
class Comparable:
    """Documents to compare, as plain values that are sent to workers."""

    name: str  # of the rule; for progress
    measure: str  # identifies the measurements that `opened` reads
    opened: Callable[[], Comparison]
    tables: int


class ConnectedComponents:
    """Connected components: the label of a member is the smallest member that it is connected with."""

    def __init__(self, count: int) -> None:
        import numpy as np

        self.labels = np.arange(count)

    def add(self, one: np.ndarray, other: np.ndarray) -> None:
        """Connect pairs of members."""
        import numpy as np

        while True:
            low, high = self.labels[one], self.labels[other]
            differs = low != high
            if not differs.any():
                return
            one, other, low, high = one[differs], other[differs], low[differs], high[differs]
            np.minimum.at(self.labels, np.maximum(low, high), np.minimum(low, high))
            while (self.labels[self.labels] != self.labels).any():
                self.labels = self.labels[self.labels]


# ---------------------------------------------------------------------------------------------------------------
# By table


@dataclass(frozen=True)
class ConnectInTable:
    """The members that one table connects."""

    documents: Comparable
    table: int
    members: Path  # int64: rows by precedence
    digest: str  # of that file
    at_least: float
    memory_bytes: int
    output: Path


def find_families(members: np.ndarray, documents: Comparable, at_least: float, drafts: Drafts) -> np.ndarray:
    """The label of each member: the position in `members` of the first member of its family.

    `members`: rows by precedence. Members with the same key in one of the tables are compared, and belong to one family
    if their similarity is `at_least` that.
    """
    import numpy as np

    folder = drafts.folder / f"{documents.measure}-families"
    remove_partial_folders(folder)
    file, digest = _stored(folder / "members.bin", members)
    work = [
        ConnectInTable(documents, table, file, digest, at_least, drafts.memory_bytes, folder / f"table-{table:05d}")
        for table in range(documents.tables)
    ]
    drafts.map_work(f"{documents.name}: comparing", connect_in_table, work, len(members) > FEW_MEMBERS)
    components = ConnectedComponents(len(members))
    for item in work:
        pairs = np.fromfile(item.output / PAIRS_FILE, np.int64).reshape(-1, 2)
        components.add(pairs[:, 0], pairs[:, 1])
    return components.labels


def connect_in_table(work: ConnectInTable) -> dict[str, Any]:
    """Find the pairs of a table unless that is complete."""
    inputs = {"members": work.digest, "at_least": work.at_least, "tables": work.documents.tables}
    return run_once(work.output, inputs, lambda folder: _connect(work, folder))


def _connect(work: ConnectInTable, folder: Path) -> Mapping[str, Any]:
    import numpy as np

    comparison = work.documents.opened()
    members = np.fromfile(work.members, np.int64)
    components = ConnectedComponents(len(members))
    with Spill(folder, work.memory_bytes) as spill:
        for start in range(0, len(members), PAIRS):
            some = members[start : start + PAIRS]
            spill.add(comparison.keys(work.table, some), np.arange(start, start + len(some)))
        for one, other in _neighbours(spill):
            new = components.labels[one] != components.labels[other]
            one, other = one[new], other[new]
            true = comparison.similarity(members[one], members[other]) >= work.at_least
            components.add(one[true], other[true])
    connected = np.flatnonzero(components.labels != np.arange(len(members)))
    np.stack([connected, components.labels[connected]], axis=1).tofile(folder / PAIRS_FILE)
    return {"pairs": len(connected)}


def _neighbours(spill: Spill) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of values with the same key that were added at a distance in NEIGHBOURS."""
    import numpy as np

    reach = max(NEIGHBOURS)
    for pieces in spill.parts():
        keys, values = np.empty(0, np.uint64), np.empty(0, np.int64)
        for piece in pieces():  # the last values of a piece are neighbours of the first ones of the next
            keys, values = np.append(keys[-reach:], piece[0]), np.append(values[-reach:], piece[1])
            for apart in NEIGHBOURS:
                near = np.flatnonzero(keys[apart:] == keys[:-apart])
                for start in range(0, len(near), PAIRS):
                    positions = near[start : start + PAIRS]
                    yield values[positions], values[positions + apart]


# ---------------------------------------------------------------------------------------------------------------
# By family


@dataclass(frozen=True)
class CompareWithFirst:
    """Some of the members that are dropped, to compare with the first member of their family."""

    documents: Comparable
    pairs: Path  # int64 [pairs, 2]: rows
    digest: str  # of that file
    start: int
    stop: int
    output: Path


def drop_all_but_first(
    index: DocumentIndex,
    threshold: str,
    members: np.ndarray,
    labels: np.ndarray,
    documents: Comparable,
    drafts: Drafts,
) -> RuleDecision:
    """Drop all members of each family except the first one."""
    import numpy as np

    dropped = np.flatnonzero(labels != np.arange(len(labels)))
    rows, first = members[dropped], members[labels[dropped]]
    folder = drafts.folder / f"{documents.measure}-families"
    file, digest = _stored(folder / "dropped.bin", np.stack([rows, first], axis=1))
    work = [
        CompareWithFirst(documents, file, digest, start, min(start + PAIRS, len(rows)), folder / f"similar-{start}")
        for start in range(0, len(rows), PAIRS)
    ]
    drafts.map_work(f"{documents.name}: measuring", compare_with_first, work, len(work) > 1)
    found = [np.fromfile(item.output / SIMILARITIES_FILE, np.float64) for item in work]
    return RuleDecision(
        operation="deduplicate",
        rule=documents.name,
        threshold=threshold,
        rows=rows,
        values=lambda positions: index.ids(first[positions]),
        families=Families(rows, first, np.concatenate([np.empty(0), *found])),
    )


def compare_with_first(work: CompareWithFirst) -> dict[str, Any]:
    """Compare the members unless that is complete."""
    inputs = {"pairs": work.digest, "start": work.start, "stop": work.stop}
    return run_once(work.output, inputs, lambda folder: _compare(work, folder))


def _compare(work: CompareWithFirst, folder: Path) -> Mapping[str, Any]:
    import numpy as np

    count = work.stop - work.start
    pairs = np.fromfile(work.pairs, np.int64, 2 * count, offset=16 * work.start).reshape(-1, 2)
    work.documents.opened().similarity(pairs[:, 0], pairs[:, 1]).tofile(folder / SIMILARITIES_FILE)
    return {"pairs": count}


def _stored(file: Path, values: np.ndarray) -> tuple[Path, str]:
    """Write an array for workers; returns the file and its SHA-256."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    values.tofile(partial)
    with partial.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    os.replace(partial, file)
    return file, digest


def measure_name(folders: Sequence[Path]) -> str:
    """What identifies a measurement of all drafts, from the folders that `Drafts.measured` returns."""
    return folders[0].parent.name if folders else ""
