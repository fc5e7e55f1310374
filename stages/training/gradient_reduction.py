"""Adds the gradients of a batch's micro-batches over all ranks, and leaves each rank the shard that it owns.

`create_reducer` chooses one of two schedules:

    StepReducer        stages 0 and 1: a rank computes a contiguous run of micro-batches, keeps their partial sums, and
                       exchanges those once a step, while the last backward pass continues
    MicroBatchReducer  stages 2 and 3: micro-batches are dealt out in turns, and gradients are exchanged after each, so
                       that a rank keeps shards only

Both add in the fixed tree of `stages/training/summation_tree.py`. Large groups are exchanged in buckets of bounded
size, so that the memory in flight does not grow with the group. A bucket is a range of columns: the same range of every
rank's shard. Elements are added one by one, so bucket boundaries do not show in the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from stages.parallel.collectives import Collectives
from stages.training.buffers import GroupBuffers
from stages.training.in_flight import InFlightOperations
from stages.training.layout import bucket_columns
from stages.training.recipe import Execution, Recipe
from stages.training.summation_tree import PartialSums, Span, contiguous_run, spans_of_ranks

# An exchange wakes threads on all ranks, so the sums of small groups wait for each other until they have this size.
MINIMUM_EXCHANGE_BYTES = 4 << 20


class GradientReducer:
    """What both schedules share: one step after the other, each of `micro_batches` micro-batches.

    For each micro-batch of `turns()`: `begin`, a backward pass that calls `close` as it leaves groups, `end`. Then
    `finish`. Every rank closes groups in the same order whatever its data.
    """

    def __init__(
        self, groups: Sequence[GroupBuffers], recipe: Recipe, execution: Execution, collectives: Collectives
    ) -> None:
        self.micro_batches = recipe.micro_batches
        self._groups, self._collectives = groups, collectives
        self._bucket_bytes = execution.bucket_bytes
        self._largest = max(group.layout.padded(collectives.ranks) for group in groups)
        self._in_flight = InFlightOperations()
        self._turn = 0  # micro-batches that this rank has completed in this step
        self._micro_batch = 0  # the number of the current one
        self._open = 0  # how many groups, from the first, have gradients of the current micro-batch still to come

    def turns(self) -> Sequence[int]:
        """The micro-batches that this rank computes in a step, in order; see `ShardedModel.turns`."""
        raise NotImplementedError

    def begin(self, micro_batch: int) -> None:
        """The backward pass of a micro-batch follows."""
        self._micro_batch = micro_batch
        self._open = len(self._groups)

    def close(self, first: int) -> None:
        """The backward pass has left the groups from number `first` on."""
        closed = self._groups[first : self._open]
        for buffers in reversed(closed):
            self._add(buffers)
        self._open = min(first, self._open)
        if closed:
            self._after_close(first)

    def end(self) -> None:
        """The backward pass is over. Parameters that got no gradient have a zero one."""
        self.close(0)
        self._turn += 1

    def finish(self) -> None:
        """Complete the step: set the gradient of every group."""
        self._complete()
        self._turn = 0

    def _add(self, buffers: GroupBuffers) -> None:
        """Take over a group's gradient of the current micro-batch."""
        raise NotImplementedError

    def _after_close(self, first: int) -> None:
        """Groups were closed; those before number `first` are still open."""

    def _complete(self) -> None:
        raise NotImplementedError

    def _set_local_sums(self) -> None:
        """Set every group's gradient to the sum of partial sums that are all on this rank."""
        for buffers in self._groups:
            partial_sums, buffers.partial_sums = buffers.partial_sums, []
            totals = (sums.total() for sums in partial_sums)
            shard = buffers.layout.shard(self._collectives.ranks)
            buffers.gradient = next(totals) if len(partial_sums) == 1 else _concatenated(totals, shard, buffers.full)


class StepReducer(GradientReducer):
    """ZeRO stages 0 and 1: exchanges partial sums once a step. At stage 0 every rank gets the whole gradient.

    Without the recipe's fixed order each rank has a single sum, added in the order of computation, and the ranks' sums
    are added by the backend's reduce-scatter if it has a true one.
    """

    def __init__(
        self, groups: Sequence[GroupBuffers], recipe: Recipe, execution: Execution, collectives: Collectives
    ) -> None:
        super().__init__(groups, recipe, execution, collectives)
        self._fixed_order = recipe.free_order_ranks is None
        self._whole = execution.zero_stage == 0
        self._unsent = len(groups)  # how many groups, from the first, are not exchanged yet
        self._gathers: list[Callable[[], None]] = []  # stage 0: each waits for a gather of a summed gradient

    def turns(self) -> range:
        return contiguous_run(self._collectives.rank, self._collectives.ranks, self.micro_batches)

    def _add(self, buffers: GroupBuffers) -> None:
        if not buffers.partial_sums:
            buffers.partial_sums = [PartialSums()]
        gradient = buffers.take_gradient()
        if self._fixed_order:
            buffers.partial_sums[0].add(self._micro_batch, 1, gradient)
        else:
            buffers.partial_sums[0].accumulate(self._collectives.rank, gradient)

    def _after_close(self, first: int) -> None:
        if self._turn == len(self.turns()) - 1:
            self._exchange(first)

    def _exchange(self, first: int) -> None:
        """Exchange the groups from number `first` on, whose sums are complete. Small groups wait for each other. Every
        rank exchanges the groups in the same order."""
        waiting = self._groups[first : self._unsent]
        if self._collectives.ranks == 1:
            return
        enough = min(MINIMUM_EXCHANGE_BYTES, self._bucket_bytes)
        if first and sum(4 * len(buffers.full) for buffers in waiting) < enough:
            return
        spans = spans_of_ranks(self._collectives.ranks, self.micro_batches, self._fixed_order)
        for buffers in reversed(waiting):
            self._exchange_group(buffers, spans)
        self._unsent = first

    def _exchange_group(self, buffers: GroupBuffers, spans: Sequence[Sequence[Span]]) -> None:
        ranks = self._collectives.ranks
        kept, buffers.partial_sums = buffers.partial_sums, []
        rows = [partial_sum.value for sums in kept for partial_sum in sums.take()]  # [padded] each
        counts = [len(of_rank) for of_rank in spans]
        if self._whole:  # the result is written into the first row, if there is any
            buffers.gradient = rows[0] if rows else torch.empty(len(buffers.full), device=buffers.full.device)
        cuts = bucket_columns(buffers.layout.shard(ranks), ranks * max(counts), self._bucket_bytes)
        for columns in cuts:
            size_bytes = 4 * ranks * (columns.stop - columns.start) * max(counts)
            self._in_flight.make_room(size_bytes, self._limit_bytes(max(counts)))
            is_last = columns == cuts[-1]
            if self._whole and counts == [1, 1]:
                complete = self._collectives.start_pair_sum(rows[0], columns)
            else:
                wait = self._start_sum(buffers, rows, spans, columns)
                complete = partial(self._store, buffers, columns, wait, len(cuts) == 1, is_last)
            self._in_flight.add(size_bytes, complete)

    def _limit_bytes(self, rows: int) -> int:
        """Twice the largest group, or twice a whole bucket."""
        return 2 * min(self._bucket_bytes, 4 * self._largest * rows)

    def _start_sum(
        self, buffers: GroupBuffers, rows: Sequence[Tensor], spans: Sequence[Sequence[Span]], columns: slice
    ) -> Callable[[], Tensor]:
        """Start to add `columns` of this rank's shard over all ranks. What is returned waits for the sum."""
        if not self._fixed_order and self._collectives.has_reduce_scatter:
            row = rows[0] if rows else torch.zeros(len(buffers.full), device=buffers.full.device)
            return self._collectives.start_reduce_scatter(row, columns)
        counts = [len(of_rank) for of_rank in spans]
        return partial(self._tree_sum, self._collectives.start_exchange(rows, counts, columns), spans)

    def _tree_sum(self, received: Callable[[], list[Tensor]], spans: Sequence[Sequence[Span]]) -> Tensor:
        sums = PartialSums(keep_buffer=self._whole)
        for (start, length), value in zip(itertools.chain(*spans), received(), strict=True):
            sums.add(start, length, value)
        if not self._whole:
            sums.detach_from_buffers()
        return sums.total()

    def _store(
        self, buffers: GroupBuffers, columns: slice, wait: Callable[[], Tensor], is_only: bool, is_last: bool
    ) -> None:
        """Wait for a sum and store it in the group's gradient, which is allocated as late as possible."""
        ranks, rank = self._collectives.ranks, self._collectives.rank
        total = wait()
        if buffers.gradient is None:
            buffers.gradient = total if is_only else total.new_empty(buffers.layout.shard(ranks))
        shard = buffers.gradient.view(ranks, -1)[rank] if self._whole else buffers.gradient
        if shard[columns].data_ptr() != total.data_ptr():
            shard[columns] = total
        if is_last and self._whole:
            self._gathers.append(self._collectives.start_all_gather(buffers.gradient, "gradients"))

    def _complete(self) -> None:
        self._exchange(0)
        self._in_flight.complete_all()
        self._unsent = len(self._groups)
        gathers, self._gathers = self._gathers, []
        for wait in gathers:
            wait()
        if self._collectives.ranks == 1:
            self._set_local_sums()


class MicroBatchReducer(GradientReducer):
    """ZeRO stages 2 and 3: exchanges gradients after each micro-batch, and keeps partial sums of shards."""

    def turns(self) -> range:
        rank, ranks = self._collectives.rank, self._collectives.ranks
        rounds = -(-self.micro_batches // ranks)
        return range(rank, rounds * ranks, ranks)

    def _add(self, buffers: GroupBuffers) -> None:
        ranks = self._collectives.ranks
        gradient = buffers.take_gradient()
        cuts = bucket_columns(len(gradient) // ranks, ranks, self._bucket_bytes)
        if not buffers.partial_sums:
            buffers.partial_sums = [PartialSums() for _ in cuts]
        # What is in flight keeps whole gradients alive that would otherwise be freed: one of the largest group at most.
        limit_bytes = min(self._bucket_bytes, 4 * self._largest)
        for columns, sums in zip(cuts, buffers.partial_sums, strict=True):
            size_bytes = 4 * ranks * (columns.stop - columns.start)
            self._in_flight.make_room(size_bytes, limit_bytes)
            received = self._collectives.start_exchange([gradient], [1] * ranks, columns)
            self._in_flight.add(size_bytes, partial(self._add_received, received, sums, self._turn * ranks))

    def _add_received(self, received: Callable[[], list[Tensor]], sums: PartialSums, first: int) -> None:
        """Add the shards of one turn. Rank r computed micro-batch `first` + r, or a spare turn, which is dropped."""
        for number, value in enumerate(received(), start=first):
            if number < self.micro_batches:
                sums.add(number, 1, value)
        sums.detach_from_buffers()

    def _complete(self) -> None:
        self._in_flight.complete_all()
        self._set_local_sums()


def create_reducer(
    groups: Sequence[GroupBuffers], recipe: Recipe, execution: Execution, collectives: Collectives
) -> GradientReducer:
    """The reducer for the execution's ZeRO stage."""
    kind = StepReducer if execution.zero_stage < 2 else MicroBatchReducer
    return kind(groups, recipe, execution, collectives)


def _concatenated(parts: Iterable[Tensor], length: int, like: Tensor) -> Tensor:
    """The parts one after the other in one float32 tensor, each part freed before the next is computed."""
    whole = torch.empty(length, device=like.device)
    start = 0
    for part in parts:
        whole[start : start + len(part)] = part
        start += len(part)
    return whole
