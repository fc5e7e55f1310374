"""Sums over micro-batches in one fixed binary tree, whichever rank computes which part of it.

Floating-point addition depends on the order. The gradients of a batch's micro-batches, numbered from 0, are therefore
added pairwise: 2k with 2k + 1, then those sums in the same way, and so on. If the number of micro-batches is not a
power of two, the remaining subtrees are added from right to left at the end. Any contiguous run of micro-batches can be
added as far as the tree allows (`PartialSums`), sent to another rank and completed there, with the same bits.

A span is a complete subtree: (first micro-batch, number of micro-batches).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Span = tuple[int, int]


def contiguous_run(rank: int, ranks: int, micro_batches: int) -> range:
    """The micro-batches that `rank` computes where sums are exchanged once a step (ZeRO stages 0 and 1)."""
    return range(micro_batches * rank // ranks, micro_batches * (rank + 1) // ranks)


def maximal_spans(run: range) -> list[Span]:
    """The maximal subtrees that a contiguous run of micro-batches adds up to, from left to right."""
    spans: list[Span] = []
    for spans in _growing_spans(run):  # noqa: B007  # the last value is the result
        pass
    return spans


def sums_held(run: range) -> list[int]:
    """The number of partial sums that are held after each micro-batch of a contiguous run."""
    return [len(spans) for spans in _growing_spans(run)]


def _growing_spans(run: range) -> Iterator[list[Span]]:
    """The spans after each micro-batch: always the same list, changed in place."""
    spans: list[Span] = []
    for number in run:
        spans.append((number, 1))
        while len(spans) > 1 and _are_siblings(spans[-2], spans[-1]):
            (start, length), _ = spans[-2], spans.pop()
            spans[-1] = (start, 2 * length)
        yield spans


def spans_of_ranks(ranks: int, micro_batches: int, fixed_order: bool) -> list[list[Span]]:
    """For each rank, the spans of the partial sums that it sends once a step.

    Without `fixed_order` each rank sends one sum, added in the order of computation, and the tree is over the ranks.
    """
    runs = [contiguous_run(rank, ranks, micro_batches) for rank in range(ranks)]
    return [maximal_spans(run) if fixed_order else [(rank, 1)][: len(run)] for rank, run in enumerate(runs)]


def _are_siblings(left: Span, right: Span) -> bool:
    return left[1] == right[1] and left[0] + left[1] == right[0] and left[0] % (2 * left[1]) == 0


@dataclass(frozen=True)
class PartialSum:
    """The sum over the subtree of `length` micro-batches that begins with micro-batch `start`."""

    start: int
    length: int
    value: Tensor


class PartialSums:
    """Partial sums of a run of micro-batches that grows from left to right.

    Takes ownership of the tensors that are added, and may change them in place. A sum is written into one of its two
    terms. If exactly one of them is a view of a larger buffer, that is the view with `keep_buffer`, and otherwise the
    other term, so that the larger buffer can be freed.
    """

    def __init__(self, keep_buffer: bool = False) -> None:
        self.held: list[PartialSum] = []
        self._keep_buffer = keep_buffer

    def add(self, start: int, length: int, value: Tensor) -> None:
        """Append the next subtree on the right, and merge it with its siblings on the left."""
        self.held.append(PartialSum(start, length, value))
        while len(self.held) > 1:
            left, right = self.held[-2], self.held[-1]
            if not _are_siblings((left.start, left.length), (right.start, right.length)):
                return
            self.held[-2:] = [PartialSum(left.start, 2 * left.length, self._add_pair(left.value, right.value))]

    def accumulate(self, start: int, value: Tensor) -> None:
        """Add to the single sum that is held, in the order of the calls. `start`: the number it is stored under."""
        if self.held:
            self.held[0].value.add_(value)
        else:
            self.held.append(PartialSum(start, 1, value))

    def detach_from_buffers(self) -> None:
        """Copy held sums that are views of larger buffers, which they would otherwise keep alive."""
        for index, partial_sum in enumerate(self.held):
            if _is_view_of_larger(partial_sum.value):
                self.held[index] = replace(partial_sum, value=partial_sum.value.clone())

    def take(self) -> list[PartialSum]:
        """Remove and return what was added so far, from left to right."""
        held, self.held = self.held, []
        return held

    def total(self) -> Tensor:
        """Remove and return the sum of everything. Correct only after every micro-batch was added."""
        sums = self.take()
        value = sums.pop().value
        while sums:
            value = self._add_pair(sums.pop().value, value)
        return value

    def _add_pair(self, left: Tensor, right: Tensor) -> Tensor:
        into_right = _is_view_of_larger(right) == self._keep_buffer
        if _is_view_of_larger(left) != _is_view_of_larger(right) and into_right:
            return right.add_(left)  # the sum of two does not depend on their order
        return left.add_(right)


def _is_view_of_larger(value: Tensor) -> bool:
    return value.untyped_storage().nbytes() > value.nbytes
