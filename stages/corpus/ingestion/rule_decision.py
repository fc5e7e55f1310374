"""What one rule decides over the whole corpus: the documents it drops, the passages it cuts, the families it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stages.artifacts.manifest import Contamination
from stages.corpus.ingestion.document_index import DocumentIndex

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Cuts:
    """Passages to remove: bytes [start, stop) of the text of a row.

    Int64 [cuts] each, sorted by row, then by start. The cuts of one row are disjoint and end at character boundaries.
    """

    rows: np.ndarray
    starts: np.ndarray
    stops: np.ndarray


@dataclass(frozen=True)
class Families:
    """Documents that resemble another one: for each, the member of the family that is kept, and the similarity."""

    rows: np.ndarray  # int64 [members]; those that are kept are not among them
    first: np.ndarray  # int64 [members]: the row of the member that is kept
    similarity: np.ndarray  # float64 [members], 0 to 1


LedgerValues = Callable[["np.ndarray"], Sequence[str]]  # the ledger's value for the given positions of `rows`


@dataclass(frozen=True)
class RuleDecision:
    """The documents that one rule drops, as rows of the index, with the value that the ledger records for each.

    A rule may cut passages instead of dropping documents, and may report families of similar documents.
    """

    operation: str
    rule: str
    threshold: str
    rows: np.ndarray  # int64
    values: LedgerValues
    cuts: Cuts | None = None
    families: Families | None = None
    contamination: Mapping[str, Contamination] = field(default_factory=dict)  # by evaluation task


# A rule, ready to decide: given the index and which rows are still kept (bool).
Decider = Callable[[DocumentIndex, "np.ndarray"], RuleDecision]


def no_values(positions: np.ndarray) -> Sequence[str]:
    """The ledger values of a rule that drops nothing."""
    return []


def merge_intervals(rows: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> Cuts:
    """The union of passages [start, stop) of rows, given in any order. Adjacent and overlapping ones become one."""
    import numpy as np

    order = np.lexsort((starts, rows))
    rows, starts, stops = rows[order], starts[order], stops[order]
    offset = int(stops.max(initial=0)) + 1  # added once for each row, it keeps the passages of different rows apart
    reach = np.maximum.accumulate(stops + rows * offset)
    new = np.ones(len(rows), bool)
    new[1:] = (rows[1:] != rows[:-1]) | (starts[1:] + rows[1:] * offset > reach[:-1])
    last = np.append(new[1:], True)[: len(new)]
    return Cuts(rows[new], starts[new], (reach - rows * offset)[last])


def merge_cuts(cuts: Sequence[Cuts]) -> Cuts:
    """The union of several sets of cuts."""
    import numpy as np

    none = np.empty(0, np.int64)
    columns = zip(*((one.rows, one.starts, one.stops) for one in (Cuts(none, none, none), *cuts)), strict=True)
    return merge_intervals(*map(np.concatenate, columns))


def over_limit(limit_bytes: int) -> Decider:
    """A rule that keeps up to `limit_bytes`: the documents with the smallest keys, a uniform sample of all sources."""

    def decide(index: DocumentIndex, kept: np.ndarray) -> RuleDecision:
        import numpy as np

        rows = np.flatnonzero(kept)
        table = index.table[rows]
        order = np.lexsort((table["id_low"], table["id_high"], table["key_low"], table["key_high"]))
        over = order[np.cumsum(table["size"][order]) > np.uint64(limit_bytes)]
        sizes = table["size"][over]
        return RuleDecision(
            operation="limit",
            rule="over",
            threshold=str(limit_bytes),
            rows=rows[over],
            values=lambda positions: list(map(str, sizes[positions])),
        )

    return decide
