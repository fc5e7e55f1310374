"""Documents that are alike, one with the next, make a family; of each the one with the first claim stays.

A family is a connected component of the pairs found, so it does not depend on the order in which they were found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from stages.corpus.ingestion.document_index import Families, Index, Ruling
from stages.corpus.ingestion.drafts import Drafts
from stages.corpus.ingestion.spill import Spill

if TYPE_CHECKING:
    import numpy as np

NEIGHBOURS = (1, 2)  # how far apart two documents of a bucket may stand that are compared, in the order of claim
PAIRS = 1 << 18  # that are compared at a time

Hash = Callable[["np.ndarray"], "np.ndarray"]  # of rows: uint64
Similarity = Callable[["np.ndarray", "np.ndarray"], "np.ndarray"]  # of rows with rows: 0 to 1


class Union:
    """Families under way: of every member the smallest number that it is known to be connected with."""

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


def find(members: np.ndarray, tables: Iterable[Hash], alike: Similarity, at_least: float, drafts: Drafts) -> np.ndarray:
    """The label of each member: the place of the first of its family.

    `members`: rows in the order of claim. `tables`: several hashes; members with the same value of one are compared,
    and belong together if they are `at_least` so alike.
    """
    import numpy as np

    union = Union(len(members))
    for hash_ in tables:
        with Spill(drafts.folder, drafts.memory_bytes) as spill:
            for start in range(0, len(members), PAIRS):
                some = members[start : start + PAIRS]
                spill.add(hash_(some), np.arange(start, start + len(some)))
            for one, other in _neighbours(spill):
                new = union.labels[one] != union.labels[other]
                one, other = one[new], other[new]
                true = alike(members[one], members[other]) >= at_least
                union.add(one[true], other[true])
    return union.labels


def _neighbours(spill: Spill) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of values that have a key in common and were added one shortly after the other."""
    import numpy as np

    reach = max(NEIGHBOURS)
    for pieces in spill.parts():
        keys, values = np.empty(0, np.uint64), np.empty(0, np.int64)
        for piece in pieces():  # of a key that is in several, the last of one are neighbours of the first of the next
            keys, values = np.append(keys[-reach:], piece[0]), np.append(values[-reach:], piece[1])
            for apart in NEIGHBOURS:
                near = np.flatnonzero(keys[apart:] == keys[:-apart])
                for start in range(0, len(near), PAIRS):
                    places = near[start : start + PAIRS]
                    yield values[places], values[places + apart]


def ruling(
    index: Index, rule: str, threshold: str, members: np.ndarray, labels: np.ndarray, alike: Similarity
) -> Ruling:
    """Drops all of each family but its first."""
    import numpy as np

    dropped = np.flatnonzero(labels != np.arange(len(labels)))
    rows, first = members[dropped], members[labels[dropped]]
    pieces = [slice(start, start + PAIRS) for start in range(0, len(rows), PAIRS)]
    similarity = np.concatenate([np.empty(0), *(alike(rows[piece], first[piece]) for piece in pieces)])
    return Ruling(
        operation="deduplicate",
        rule=rule,
        threshold=threshold,
        rows=rows,
        values=lambda places: index.ids(first[places]),
        families=Families(rows, first, similarity),
    )
