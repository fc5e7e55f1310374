"""Sums in one fixed tree, whoever computes which part of it.

Floating-point addition depends on the order. A batch is a row of `leaves` micro-batches, numbered from 0, and their
gradients are summed pairwise: leaf 2k with 2k+1, those sums in the same way, and so on; what is left over when the
number is no power of two is folded from the right at the end. Any contiguous run of leaves can be summed as far as
the tree allows (`Pieces`), sent elsewhere, and finished there: the result is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def leaf_range(rank: int, ranks: int, leaves: int) -> range:
    """The contiguous run of leaves that a rank computes when sums are exchanged once a step."""
    return range(leaves * rank // ranks, leaves * (rank + 1) // ranks)


def piece_spans(leaves: range) -> list[tuple[int, int]]:
    """(start, length) of the maximal subtrees that a contiguous run of leaves is summed to, from left to right."""
    spans: list[tuple[int, int]] = []
    for spans in _grown(leaves):  # noqa: B007  # the last one is what is asked for
        pass
    return spans


def held_after(leaves: range) -> list[int]:
    """How many such subtrees there are after each leaf of a run: as many sums are held then."""
    return [len(spans) for spans in _grown(leaves)]


def _grown(leaves: range) -> Iterator[list[tuple[int, int]]]:
    """The spans after each leaf; one list that grows and shrinks."""
    spans: list[tuple[int, int]] = []
    for leaf in leaves:
        spans.append((leaf, 1))
        while len(spans) > 1 and _siblings(spans[-2], spans[-1]):
            (start, length), _ = spans[-2], spans.pop()
            spans[-1] = (start, 2 * length)
        yield spans


def kept_spans(ranks: int, leaves: int, in_order: bool) -> list[list[tuple[int, int]]]:
    """What each rank has summed its run of leaves to, as spans of the tree whose sums are then finished together.

    Not `in_order`: each rank has one sum, added up as its leaves came, and the tree is that of the ranks.
    """
    runs = [leaf_range(rank, ranks, leaves) for rank in range(ranks)]
    return [piece_spans(run) if in_order else [(rank, 1)][: len(run)] for rank, run in enumerate(runs)]


def _siblings(left: tuple[int, int], right: tuple[int, int]) -> bool:
    return left[1] == right[1] and left[0] + left[1] == right[0] and left[0] % (2 * left[1]) == 0


@dataclass(frozen=True)
class Piece:
    """The sum of the subtree of `length` leaves that starts at leaf `start`."""

    start: int
    length: int
    value: Tensor


class Pieces:
    """Sums that grow from left to right. Takes tensors over: what is added may be changed in place.

    A sum takes the place of one of its two terms. `within`: of the one that is part of something larger, where that is
    kept; else of the one that is not, so that the larger can go.
    """

    def __init__(self, within: bool = False) -> None:
        self.held: list[Piece] = []
        self._within = within

    def add(self, start: int, length: int, value: Tensor) -> None:
        """Add the next subtree to the right; merges it with its siblings on the left."""
        self.held.append(Piece(start, length, value))
        while len(self.held) > 1:
            left, right = self.held[-2], self.held[-1]
            if not _siblings((left.start, left.length), (right.start, right.length)):
                return
            self.held[-2:] = [Piece(left.start, 2 * left.length, self._sum(left.value, right.value))]

    def add_to_first(self, start: int, value: Tensor) -> None:
        """Add to the one sum that is held, of which `start` is the place; in the order of the calls."""
        if self.held:
            self.held[0].value.add_(value)
        else:
            self.held.append(Piece(start, 1, value))

    def settle(self) -> None:
        """Give what is held storage of its own: a sum that grew inside a larger buffer would keep all of it alive."""
        for index, piece in enumerate(self.held):
            if _is_part(piece.value):
                self.held[index] = replace(piece, value=piece.value.clone())

    def take(self) -> list[Piece]:
        """What was summed so far, from left to right; starts anew."""
        held, self.held = self.held, []
        return held

    def total(self) -> Tensor:
        """The sum of everything added, starting anew. Only right once every leaf was added."""
        pieces = self.take()
        value = pieces.pop().value
        while pieces:
            value = self._sum(pieces.pop().value, value)
        return value

    def _sum(self, left: Tensor, right: Tensor) -> Tensor:
        if _is_part(left) != _is_part(right) and _is_part(right) == self._within:
            return right.add_(left)  # addition of two commutes
        return left.add_(right)


def _is_part(value: Tensor) -> bool:
    return value.untyped_storage().nbytes() > value.nbytes
