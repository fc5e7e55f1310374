"""What bitwise equality for every number of ranks costs: this library's stages 0 and 1 with sums in any order.

Gradients of micro-batches are added up as they come; ranks then sum them by torch's own all-reduce at stage 0, and at
stage 1 by the same direct sends, one sum a rank (gloo's reduce-scatter would send twice as much). The norm is a plain
sum of squares. Everything else is the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

from stages.training import gradients, zero
from stages.training.buffers import Buffers
from stages.training.collectives import Collectives
from stages.training.gradients import Flight
from stages.training.tree import Pieces


@contextmanager
def free_order() -> Iterator[None]:
    """Steps taken inside sum in any order."""
    with (
        patch.object(gradients, "keep_whole", _keep_whole),
        patch.object(gradients, "exchange_sums", _reduce),
        patch.object(zero.ShardedModel, "_landed", _landed),
        patch.object(zero, "sum_of_squares", _sum_of_squares),
    ):
        yield


def _keep_whole(buffers: Buffers, leaf_number: int) -> None:
    leaf = buffers.take_gradient()
    if not buffers.pieces:
        buffers.pieces = [Pieces()]
        buffers.pieces[0].add(0, 1, leaf)
    else:
        buffers.pieces[0].held[0].value.add_(leaf)


def _reduce(
    buffers: Buffers,
    leaves: int,
    collectives: Collectives,
    bucket_bytes: int,
    flight: Flight,
    landed: Callable[[Tensor], None],
    whole: bool,
) -> None:
    [piece], buffers.pieces = buffers.pieces[0].take(), []
    gradient, ranks = piece.value, collectives.ranks
    flight.make_room(gradient.nbytes, 1, bucket_bytes)
    wait: Callable[[], Tensor]
    if whole:
        work = dist.all_reduce(gradient, async_op=True)

        def wait() -> Tensor:
            work.wait()
            return gradient
    else:
        received = collectives.exchange_later([gradient], [1] * ranks, slice(0, len(gradient) // ranks))

        def wait() -> Tensor:
            *others, total = sorted(received(), key=lambda shard: shard.untyped_storage().nbytes(), reverse=True)
            for other in others:
                total.add_(other)
            return total

    flight.begin(gradient.nbytes, lambda: landed(wait()))


def _landed(self: zero.ShardedModel, buffers: Buffers, gradient: Tensor) -> None:
    buffers.gradient = gradient


def _sum_of_squares(shards: Sequence[Tensor], rows: int, collectives: Collectives) -> float:
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(shards))))
    return float(collectives.agree(norm.square()))
