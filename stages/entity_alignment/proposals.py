"""Pairs that are not given: proposed by the model during iterative training, or found from one modality alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from stages.csls import blocks, match

RESTART, PROMOTE = 5, 10  # proposals: every 5th starts again from nothing, every 10th becomes training pairs
SURPLUS = 100  # most similar pairs that are looked at, for each seed


@dataclass
class Proposals:
    """Mutual nearest neighbours among the entities without a pair, kept only if they are proposed again and again.

    The first of five proposals keeps every pair; each of the others keeps those of the one before that it confirms.
    Every ten, what has survived is promoted.
    """

    pairs: set[tuple[int, int]] = field(default_factory=set)

    def update(self, number: int, proposed: set[tuple[int, int]]) -> None:
        """Take up the proposal with this number, from 1."""
        self.pairs = proposed if number % RESTART == 1 else self.pairs & proposed

    def promoted(self, number: int) -> list[tuple[int, int]]:
        """The pairs that become training pairs after the proposal with this number."""
        if number % PROMOTE:
            return []
        found, self.pairs = sorted(self.pairs), set()
        return found


def propose(left: Tensor, right: Tensor, left_ids: Tensor, right_ids: Tensor) -> set[tuple[int, int]]:
    """The mutual nearest neighbours of two sets of unit vectors, as pairs of their ids."""
    rows, columns = match(left.numpy(), right.numpy(), neighbours=0).mutual()
    return set(zip(left_ids[rows].tolist(), right_ids[columns].tolist(), strict=True))


def most_similar(left: Tensor, right: Tensor, count: int) -> list[tuple[int, int]]:
    """At most `count` pairs of rows, each row in one of them at most: greedily from the most similar pair on.

    Only the 100 * count most similar pairs are looked at.
    """
    limit = min(count * SURPLUS, len(left) * len(right))
    values, places = torch.empty(0), torch.empty(0, dtype=torch.int64)
    for rows, columns, block in blocks(left.numpy(), right.numpy()):
        best = torch.from_numpy(block).flatten().topk(min(limit, block.size))
        row, column = best.indices // block.shape[1], best.indices % block.shape[1]
        values = torch.cat([values, best.values])
        places = torch.cat([places, (row + rows.start) * len(right) + column + columns.start])
        if len(values) > limit:
            kept = values.topk(limit)
            values, places = kept.values, places[kept.indices]
    pairs: list[tuple[int, int]] = []
    used: tuple[set[int], set[int]] = (set(), set())
    for place in places[torch.argsort(values, descending=True, stable=True)].tolist():
        a, b = divmod(place, len(right))
        if a not in used[0] and b not in used[1]:
            pairs.append((a, b))
            used[0].add(a)
            used[1].add(b)
            if len(pairs) == count:
                break
    return pairs
