"""Documents that are alike, one with the next, make a family; of each the one with the first claim stays.

A family is a connected component of the pairs found, so it does not depend on the order in which they were found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from stages.corpus.index import Families, Index, Ruling

if TYPE_CHECKING:
    import numpy as np

NEIGHBOURS = (1, 2)  # how far apart two documents of a bucket may stand that are compared, in the order of claim
PAIRS = 1 << 18  # that are compared at a time

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


def find(members: np.ndarray, tables: Iterator[np.ndarray], alike: Similarity, at_least: float) -> np.ndarray:
    """The label of each member: the place of the first of its family.

    `members`: rows in the order of claim. `tables`: for each of several hashes, its value for every member (uint64);
    members with the same value are compared, and belong together if they are `at_least` so alike.
    """
    import numpy as np

    union = Union(len(members))
    for keys in tables:
        order = np.argsort(keys, kind="stable")
        for apart in NEIGHBOURS:
            near = np.flatnonzero(keys[order[apart:]] == keys[order[:-apart]])
            for start in range(0, len(near), PAIRS):
                places = near[start : start + PAIRS]
                one, other = order[places], order[places + apart]
                new = union.labels[one] != union.labels[other]
                one, other = one[new], other[new]
                true = alike(members[one], members[other]) >= at_least
                union.add(one[true], other[true])
    return union.labels


def ruling(
    index: Index, rule: str, threshold: str, members: np.ndarray, labels: np.ndarray, alike: Similarity
) -> Ruling:
    """Drops all of each family but its first."""
    import numpy as np

    dropped = np.flatnonzero(labels != np.arange(len(labels)))
    rows, first = members[dropped], members[labels[dropped]]
    pieces = [slice(start, start + PAIRS) for start in range(0, len(rows), PAIRS)]
    similarity = np.concatenate([np.empty(0), *(alike(rows[piece], first[piece]) for piece in pieces)])
    return Ruling("deduplicate", rule, threshold, rows, index.ids(first), families=Families(rows, first, similarity))
