"""Gradients of micro-batches, summed in the fixed tree and shared out, a bucket at a time.

Ranks exchange a large group's gradient in buckets of bounded size, so that what is in flight does not grow with the
group. A bucket is a range of columns: the same stretch of every rank's shard. Elements are summed one by one, so where
the cuts are does not show in the result. An exchange goes on while the backward pass works on the next group.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from stages.parallel.collectives import Collectives
from stages.training.buffers import Buffers
from stages.training.layout import bucket_columns
from stages.training.tree import Pieces

# An exchange wakes threads on all ranks: sums of small groups wait for each other until they are so many bytes.
WORTH_SENDING_BYTES = 4 << 20


def keep_whole(buffers: Buffers, leaf_number: int) -> None:
    """Stages 0 and 1: add a micro-batch's gradient to the sums that this rank keeps until the step's end."""
    if not buffers.pieces:
        buffers.pieces = [Pieces()]
    buffers.pieces[0].add(leaf_number, 1, buffers.take_gradient())


def keep_one_sum(buffers: Buffers, rank: int) -> None:
    """The same in free order: to the one sum that `rank` keeps."""
    if not buffers.pieces:
        buffers.pieces = [Pieces()]
    buffers.pieces[0].add_to_first(rank, buffers.take_gradient())


class Flight:
    """Exchanges that are on their way while computation goes on. Before one begins for which there is no room, the
    oldest are landed: waited for, and what came taken up. So computation seldom waits for a slower rank, and small
    groups never have a wait of their own.

    There is room for `at_once` exchanges of the largest group, which has `largest` elements, or of a whole bucket.
    """

    def __init__(self, largest: int, at_once: int) -> None:
        self._largest, self._at_once = largest, at_once
        self._on_the_way: deque[tuple[int, Callable[[], None]]] = deque()

    def make_room(self, size_bytes: int, rows: int, bucket_bytes: int) -> None:
        """For `size_bytes` of `rows` rows of gradients."""
        limit = self._at_once * min(bucket_bytes, 4 * self._largest * rows)
        while self._on_the_way and sum(size for size, _ in self._on_the_way) + size_bytes > limit:
            self._on_the_way.popleft()[1]()

    def begin(self, size_bytes: int, landing: Callable[[], None]) -> None:
        """An exchange has begun; `landing` waits for it and takes up what came."""
        self._on_the_way.append((size_bytes, landing))

    def land(self) -> None:
        """Land all."""
        while self._on_the_way:
            self._on_the_way.popleft()[1]()


def exchange_turn(
    buffers: Buffers, first_leaf: int, leaves: int, collectives: Collectives, bucket_bytes: int, flight: Flight
) -> None:
    """Stages 2 and 3: all ranks exchange the gradients of one turn, and each adds up its shard when they land.

    Rank r's gradient is that of micro-batch `first_leaf` + r, and is dropped if there are only `leaves` of them.
    """
    ranks = collectives.ranks
    leaf = buffers.take_gradient()
    cuts = bucket_columns(len(leaf) // ranks, ranks, bucket_bytes)
    if not buffers.pieces:
        buffers.pieces = [Pieces() for _ in cuts]

    def begin(columns: slice, pieces: Pieces) -> None:
        size_bytes = 4 * ranks * (columns.stop - columns.start)
        flight.make_room(size_bytes, 1, bucket_bytes)
        received = collectives.exchange_later([leaf], [1] * ranks, columns)

        def landing() -> None:
            for number, value in enumerate(received(), start=first_leaf):
                if number < leaves:
                    pieces.add(number, 1, value)
            pieces.settle()

        flight.begin(size_bytes, landing)

    for columns, pieces in zip(cuts, buffers.pieces, strict=True):
        begin(columns, pieces)


def exchange_sums(
    buffers: Buffers,
    spans: Sequence[Sequence[tuple[int, int]]],
    collectives: Collectives,
    bucket_bytes: int,
    flight: Flight,
    landed: Callable[[Tensor, bool], None],
    whole: bool,
    in_order: bool,
) -> None:
    """Stages 0 and 1: all ranks exchange the sums that they have kept, of each rank `spans` of the tree. When all has
    come, `landed` is called with this rank's shard of the sum over all micro-batches, [padded / ranks]; `whole`: with a
    tensor for all ranks' shards, [padded], in which this rank's is, and whether the others' are in it as well. Not
    `in_order`: by the backend's own reduce-scatter where it has a true one."""
    ranks, rank, shard = collectives.ranks, collectives.rank, buffers.layout.shard(collectives.ranks)
    kept, buffers.pieces = buffers.pieces, []
    counts = [len(of_rank) for of_rank in spans]
    held = [piece.value for sums in kept for piece in sums.take()]
    cuts = bucket_columns(shard, ranks * max(counts), bucket_bytes)
    result: list[Tensor] = []  # made as late as it can be
    if whole:  # where the first of the kept sums is, if there is any
        result = [held[0] if held else torch.empty(ranks * shard, device=buffers.full.device)]

    def begin_two(columns: slice) -> None:
        size_bytes = 4 * ranks * (columns.stop - columns.start)
        flight.make_room(size_bytes, 1, bucket_bytes)
        summed = collectives.sum_of_two_later(held[0], columns)

        def landing() -> None:
            summed()
            if columns == cuts[-1]:
                landed(held[0], True)

        flight.begin(size_bytes, landing)

    def natively(columns: slice) -> Callable[[], Tensor]:
        nothing = torch.zeros(0 if held else ranks * shard, device=buffers.full.device)
        return collectives.reduce_scatter_later(held[0] if held else nothing, columns)

    def by_tree(columns: slice) -> Callable[[], Tensor]:
        received = collectives.exchange_later(held, counts, columns)

        def total() -> Tensor:
            sums = Pieces(within=whole)
            for (start, length), value in zip(itertools.chain(*spans), received(), strict=True):
                sums.add(start, length, value)
            if not whole:
                sums.settle()
            return sums.total()

        return total

    def begin(columns: slice) -> None:
        size_bytes = 4 * ranks * (columns.stop - columns.start) * max(counts)
        flight.make_room(size_bytes, max(counts), bucket_bytes)
        coming = natively(columns) if not in_order and collectives.has_reduce_scatter else by_tree(columns)

        def landing() -> None:
            total = coming()
            if not result:
                result.append(total if len(cuts) == 1 else total.new_empty(shard))
            place = result[0].view(ranks, -1)[rank] if whole else result[0]
            if place[columns].data_ptr() != total.data_ptr():
                place[columns] = total
            if columns == cuts[-1]:
                landed(result[0], False)

        flight.begin(size_bytes, landing)

    for columns in cuts:
        (begin_two if whole and counts == [1, 1] else begin)(columns)


def shard_of_sum(buffers: Buffers, collectives: Collectives) -> Tensor:
    """Where sums are there already (stages 2 and 3, or one rank): this rank's shard of the step's, [padded / ranks]."""
    pieces, buffers.pieces = buffers.pieces, []
    parts = (sums.total() for sums in pieces)
    return next(parts) if len(pieces) == 1 else _end_to_end(parts, buffers, collectives.ranks)


def _end_to_end(parts: Iterable[Tensor], buffers: Buffers, ranks: int) -> Tensor:
    """One after the other in a tensor of their own, each part freed before the next is made."""
    whole = torch.empty(buffers.layout.shard(ranks), device=buffers.full.device)
    start = 0
    for part in parts:
        whole[start : start + len(part)] = part
        start += len(part)
    return whole
