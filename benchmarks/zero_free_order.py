"""What bitwise equality for every number of ranks costs: this library's stage 1 with sums in any order.

Gradients of micro-batches are added up as they come, ranks reduce with torch's own reduce-scatter (on gloo an
all-reduce underneath), and the norm is a plain sum of squares. Everything else is the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

from stages.training import gradients, zero
from stages.training.buffers import Buffers
from stages.training.collectives import Collectives
from stages.training.tree import Pieces


@contextmanager
def free_order() -> Iterator[None]:
    """Steps taken inside sum in any order."""
    with (
        patch.object(gradients, "keep_whole", _keep_whole),
        patch.object(gradients, "exchange_sums", _reduce),
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
    flight: Any,
    landed: Callable[[Tensor], None],
) -> None:
    [piece], buffers.pieces = buffers.pieces[0].take(), []
    shard = piece.value.new_empty(len(piece.value) // collectives.ranks)
    work = dist.reduce_scatter_tensor(shard, piece.value, async_op=True)

    def landing() -> None:
        work.wait()
        landed(shard)

    flight.land()
    flight.begin(landing)


def _sum_of_squares(shards: Sequence[Tensor], rows: int, collectives: Collectives) -> float:
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(shards))))
    return float(collectives.agree(norm.square()))
