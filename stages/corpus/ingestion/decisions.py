"""The second phase: decides for every document of the corpus whether it is kept, and writes a decision file per shard.

A decision file is an Arrow stream with one row per document: its outcome, the value that the ledger records for it, the
passages that are cut out of its text, and the families of similar documents that it belongs to.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.manifest import Contamination, Split, Tally
from stages.corpus.ingestion.counts import drop_reason
from stages.corpus.ingestion.document_index import DocumentIndex
from stages.corpus.ingestion.rule_decision import Cuts, Decider, Families, RuleDecision
from stages.corpus.ingestion.validation_split import ChooseValidation

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

# Outcomes of a document. FIRST_DROPPED + n: dropped by the n-th rule.
TRAIN, VALIDATION, FIRST_DROPPED = 0, 1, 2
CUT_FIELDS = ("rule", "start", "stop")  # the number of the rule; bytes [start, stop)
FAMILY_FIELDS = ("rule", "first", "similarity")  # first: the id of the member that is kept


@dataclass(frozen=True)
class DropReason:
    """What the ledger records for every document that a rule drops."""

    operation: str
    rule: str
    threshold: str


@dataclass(frozen=True)
class Decisions:
    """The decision file of each shard with its SHA-256, and the rules that the files refer to by number."""

    files: tuple[tuple[Path, str], ...]
    rules: tuple[DropReason, ...]
    contamination: Mapping[str, Contamination]  # by evaluation task
    documents: Mapping[Split, int]  # in each split, before passages are cut out
    dropped: Mapping[str, Tally]  # by the rules, by reason


def decide_all(
    index: DocumentIndex, deciders: Sequence[Decider], choose_validation: ChooseValidation, folder: Path
) -> Decisions:
    """Apply the rules in order, each to what the previous ones kept; split what is left; write the decision files."""
    import numpy as np
    import pyarrow as pa

    outcomes = np.zeros(len(index), np.uint8)
    kept = np.ones(len(index), bool)
    decisions = []
    for number, decide in enumerate(deciders):
        decision = decide(index, kept)
        kept[decision.rows] = False
        outcomes[decision.rows] = FIRST_DROPPED + number
        decisions.append(decision)
    validation = choose_validation(index, kept, _cut_bytes(len(index), decisions))
    outcomes[kept] = np.where(validation[kept], VALIDATION, TRAIN)
    by_row = [_DecisionByRow.of(decision) for decision in decisions]
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for shard, (start, stop) in enumerate(pairwise(index.starts.tolist())):
        of_shard = [decision.between(start, stop) for decision in by_row]
        values = np.full(stop - start, None, object)
        for decided in of_shard:
            values[decided.dropped - start] = decided.values
        table = pa.table({
            "outcome": outcomes[start:stop],
            "value": pa.array(values, pa.string()),
            "cuts": _lists_by_row(start, stop, *_cut_columns(of_shard)),
            "families": _lists_by_row(start, stop, *_family_columns(index, of_shard)),
        })  # fmt: skip
        files.append(_write(folder / f"{shard:05d}.arrow", table))
    return Decisions(
        files=tuple(files),
        rules=tuple(DropReason(decision.operation, decision.rule, decision.threshold) for decision in decisions),
        contamination={task: found for decision in decisions for task, found in decision.contamination.items()},
        documents={"train": int((outcomes == TRAIN).sum()), "validation": int((outcomes == VALIDATION).sum())},
        dropped=_dropped(index, decisions),
    )


def _dropped(index: DocumentIndex, decisions: Sequence[RuleDecision]) -> dict[str, Tally]:
    """The documents and bytes that each rule drops, by reason."""
    found: dict[str, Tally] = {}
    for decision in decisions:
        reason = drop_reason(decision.operation, decision.rule)
        one = Tally(documents=len(decision.rows), bytes=int(index.table["size"][decision.rows].sum()))
        if one.documents:
            found[reason] = found.get(reason, Tally()) + one
    return found


def _cut_bytes(count: int, decisions: Sequence[RuleDecision]) -> np.ndarray:
    """An upper bound of the bytes that are cut out of each row (int64): bytes that two rules cut count twice."""
    import numpy as np

    lost = np.zeros(count, np.int64)
    for decision in decisions:
        if decision.cuts is not None:
            np.add.at(lost, decision.cuts.rows, decision.cuts.stops - decision.cuts.starts)
    return lost


@dataclass(frozen=True)
class _DecisionByRow:
    """A rule's decision sorted by row, so that the part of a shard is found by binary search."""

    decision: RuleDecision
    order: np.ndarray  # positions in decision.rows
    rows: np.ndarray
    members: np.ndarray  # rows of the members of families, including those that are kept
    first: np.ndarray
    similarity: np.ndarray

    @classmethod
    def of(cls, decision: RuleDecision) -> _DecisionByRow:
        import numpy as np

        order = np.argsort(decision.rows, kind="stable")
        none = np.empty(0, np.int64)
        families = decision.families or Families(none, none, np.empty(0))
        stay = np.unique(families.first)
        members, first = np.append(stay, families.rows), np.append(stay, families.first)
        similarity = np.append(np.ones(len(stay)), families.similarity)
        by_row = np.argsort(members, kind="stable")
        return cls(decision, order, decision.rows[order], members[by_row], first[by_row], similarity[by_row])

    def between(self, start: int, stop: int) -> _ShardDecision:
        """The part of the decision that concerns the rows [start, stop)."""
        import numpy as np

        dropped, members = (slice(*np.searchsorted(rows, (start, stop))) for rows in (self.rows, self.members))
        cuts = self.decision.cuts
        cut = slice(0) if cuts is None else slice(*np.searchsorted(cuts.rows, (start, stop)))
        none = np.empty(0, np.int64)
        return _ShardDecision(
            dropped=self.rows[dropped],
            values=self.decision.values(self.order[dropped]),
            cuts=Cuts(none, none, none) if cuts is None else Cuts(cuts.rows[cut], cuts.starts[cut], cuts.stops[cut]),
            families=Families(self.members[members], self.first[members], self.similarity[members]),
        )


@dataclass(frozen=True)
class _ShardDecision:
    """The part of a rule's decision that concerns the documents of one shard."""

    dropped: np.ndarray  # rows
    values: Sequence[str]  # the ledger's value for each of these
    cuts: Cuts
    families: Families  # including the members that are kept


def _cut_columns(decided: Sequence[_ShardDecision]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The row of every cut, and its columns CUT_FIELDS."""
    import numpy as np

    numbers = np.repeat(np.arange(len(decided)), [len(one.cuts.rows) for one in decided])
    rows, starts, stops = (
        np.concatenate([np.empty(0, np.int64), *(getattr(one.cuts, name) for one in decided)])
        for name in ("rows", "starts", "stops")
    )
    return rows, dict(zip(CUT_FIELDS, (numbers, starts, stops), strict=True))


def _family_columns(
    index: DocumentIndex, decided: Sequence[_ShardDecision]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The row of every member of a family, and its columns FAMILY_FIELDS."""
    import numpy as np

    none = np.empty(0, np.int64)
    numbers = np.repeat(np.arange(len(decided)), [len(one.families.rows) for one in decided])
    first = index.ids(np.concatenate([none, *(one.families.first for one in decided)]))
    similarity = np.concatenate([np.empty(0), *(one.families.similarity for one in decided)])
    rows = np.concatenate([none, *(one.families.rows for one in decided)])
    return rows, dict(zip(FAMILY_FIELDS, (numbers, np.array(first, object), similarity), strict=True))


def _lists_by_row(start: int, stop: int, rows: np.ndarray, columns: dict[str, np.ndarray]) -> pa.Array:
    """For each of the rows [start, stop), the list of the entries of `columns` that belong to it."""
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
    partial = path.with_suffix(".part")
    partial.write_bytes(data)
    os.replace(partial, path)
    return path, hashlib.sha256(data).hexdigest()
