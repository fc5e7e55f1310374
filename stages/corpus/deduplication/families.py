"""Families of similar documents: connected components of pairs. The member with the highest precedence is kept.

Connected components do not depend on the order in which the pairs are found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from stages.corpus.ingestion.document_index import DocumentIndex
from stages.corpus.ingestion.drafts import Drafts
from stages.corpus.ingestion.rule_decision import Families, RuleDecision
from stages.corpus.ingestion.spill import Spill

if TYPE_CHECKING:
    import numpy as np

NEIGHBOURS = (1, 2)  # distances, by precedence, of the documents of a bucket that are compared
PAIRS = 1 << 18  # compared at a time

Hash = Callable[["np.ndarray"], "np.ndarray"]  # given rows: uint64 [rows]
Similarity = Callable[["np.ndarray", "np.ndarray"], "np.ndarray"]  # of two arrays of rows: float64 [rows], 0 to 1


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


def find_families(
    members: np.ndarray, tables: Iterable[Hash], similarity: Similarity, at_least: float, drafts: Drafts
) -> np.ndarray:
    """The label of each member: the position in `members` of the first member of its family.

    `members`: rows by precedence. `tables`: hash functions; members with the same value of one of them are compared,
    and belong to one family if their similarity is `at_least` that.
    """
    import numpy as np

    components = ConnectedComponents(len(members))
    for hash_ in tables:
        with Spill(drafts.folder, drafts.memory_bytes) as spill:
            for start in range(0, len(members), PAIRS):
                some = members[start : start + PAIRS]
                spill.add(hash_(some), np.arange(start, start + len(some)))
            for one, other in _neighbours(spill):
                new = components.labels[one] != components.labels[other]
                one, other = one[new], other[new]
                true = similarity(members[one], members[other]) >= at_least
                components.add(one[true], other[true])
    return components.labels


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


def drop_all_but_first(
    index: DocumentIndex, rule: str, threshold: str, members: np.ndarray, labels: np.ndarray, similarity: Similarity
) -> RuleDecision:
    """Drop all members of each family except the first one."""
    import numpy as np

    dropped = np.flatnonzero(labels != np.arange(len(labels)))
    rows, first = members[dropped], members[labels[dropped]]
    pieces = [slice(start, start + PAIRS) for start in range(0, len(rows), PAIRS)]
    similarities = np.concatenate([np.empty(0), *(similarity(rows[piece], first[piece]) for piece in pieces)])
    return RuleDecision(
        operation="deduplicate",
        rule=rule,
        threshold=threshold,
        rows=rows,
        values=lambda positions: index.ids(first[positions]),
        families=Families(rows, first, similarities),
    )
