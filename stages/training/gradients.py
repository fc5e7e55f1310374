"""Gradients of micro-batches, summed in the fixed tree and shared out, a bucket at a time.

Ranks exchange a large group's gradient in buckets of bounded size, so that what is in flight does not grow with the
group. A bucket is a range of columns: the same stretch of every rank's shard. Elements are summed one by one, so where
the cuts are does not show in the result. An exchange goes on while the backward pass works on the next group.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from stages.training.buffers import Buffers
from stages.training.collectives import Collectives
from stages.training.layout import bucket_columns
from stages.training.tree import Pieces, leaf_range, piece_spans


def keep_whole(buffers: Buffers, leaf_number: int) -> None:
    """Stages 0 and 1: add a micro-batch's gradient to the sums that this rank keeps until the step's end."""
    if not buffers.pieces:
        buffers.pieces = [Pieces()]
    buffers.pieces[0].add(leaf_number, 1, buffers.take_gradient())


class Flight:
    """One exchange is on its way while computation goes on: the one before is landed before the next takes off."""

    def __init__(self) -> None:
        self._landing: Callable[[], None] | None = None

    def begin(self, landing: Callable[[], None]) -> None:
        """An exchange has begun; `landing` waits for it and takes up what came."""
        self._landing = landing

    def land(self) -> None:
        landing, self._landing = self._landing, None
        if landing is not None:
            landing()


def exchange_turn(
    buffers: Buffers, first_leaf: int, leaves: int, collectives: Collectives, bucket_bytes: int, flight: Flight
) -> None:
    """Stages 2 and 3: all ranks exchange the gradients of one turn, and each adds up its shard when they land.

    Rank r's gradient is that of micro-batch `first_leaf` + r, and is dropped if there are only `leaves` of them.
    """
    ranks = collectives.ranks
    leaf = buffers.take_gradient().view(ranks, -1)
    cuts = bucket_columns(leaf.shape[1], ranks, bucket_bytes)
    if not buffers.pieces:
        buffers.pieces = [Pieces() for _ in cuts]

    def begin(columns: slice, pieces: Pieces) -> None:
        received = collectives.exchange_later(leaf[:, columns].reshape(1, -1), [1] * ranks)

        def landing() -> None:
            for number, value in enumerate(received(), start=first_leaf):
                if number < leaves:
                    pieces.add(number, 1, value)
            pieces.settle()

        flight.begin(landing)

    for columns, pieces in zip(cuts, buffers.pieces, strict=True):
        flight.land()
        begin(columns, pieces)


def exchange_sums(
    buffers: Buffers,
    leaves: int,
    collectives: Collectives,
    bucket_bytes: int,
    flight: Flight,
    landed: Callable[[Tensor], None],
) -> None:
    """Stages 0 and 1: all ranks exchange the sums that they have kept. When all has come, `landed` is called with this
    rank's shard of the sum over all `leaves` micro-batches, [padded / ranks]."""
    ranks = collectives.ranks
    kept, buffers.pieces = buffers.pieces, []
    spans = [piece_spans(leaf_range(rank, ranks, leaves)) for rank in range(ranks)]
    counts = [len(of_rank) for of_rank in spans]
    held = [piece.value.view(ranks, -1) for sums in kept for piece in sums.take()]
    cuts = bucket_columns(buffers.layout.shard(ranks), ranks * max(counts), bucket_bytes)
    whole = torch.empty(buffers.layout.shard(ranks), device=buffers.full.device) if len(cuts) > 1 else None

    def begin(columns: slice) -> None:
        if len(held) == 1:
            rows = held[0][:, columns].reshape(1, -1)  # where it is, if the columns are all
        else:
            rows = torch.empty(len(held), ranks * (columns.stop - columns.start), device=buffers.full.device)
            for row, piece in zip(rows, held, strict=True):
                row.view(ranks, -1).copy_(piece[:, columns])
        received = collectives.exchange_later(rows, counts)

        def landing() -> None:
            total = Pieces()
            for (start, length), value in zip(itertools.chain(*spans), received(), strict=True):
                total.add(start, length, value)
            total.settle()
            if whole is None:
                landed(total.total())
                return
            whole[columns] = total.total()
            if columns == cuts[-1]:
                landed(whole)

        flight.begin(landing)

    for columns in cuts:
        flight.land()
        begin(columns)


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
