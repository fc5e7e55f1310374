"""The squared global norm of gradients that are sharded over ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stages.parallel.collectives import Collectives
from stages.training.layout import ALIGNMENT


def exact_sum_of_squares(shards: Sequence[Tensor], rows: int, collectives: Collectives) -> float:
    """The sum of squares over the shards of all ranks, bitwise the same for every partition of the elements.

    `shards`: float32 tensors whose lengths are multiples of `ALIGNMENT`. `rows`: an upper bound of the number of rows
    of `ALIGNMENT` elements over all ranks, which must be the same for every partition.

    No shard boundary cuts a row. Each row's norm is computed in float32; its square is rounded to an integer at a scale
    that depends on the largest one only, and the sum of integers does not depend on their order. Returns infinity if a
    square is not finite.
    """
    norms = [torch.linalg.vector_norm(shard.view(-1, ALIGNMENT), dim=1) for shard in shards]
    sums = torch.cat(norms).double().square_()
    del norms
    peak = sums.max().nan_to_num(nan=math.inf, posinf=math.inf).view(1)  # by default, infinity would become finite
    largest = float(collectives.all_reduce(peak, "max"))
    if largest == 0 or math.isinf(largest):
        return largest
    scale = math.ldexp(1.0, 62 - rows.bit_length() - math.frexp(largest)[1])
    total = sums.mul_(scale).round_().to(torch.int64).sum().view(1)
    return int(collectives.all_reduce(total)) / scale


def plain_sum_of_squares(shards: Sequence[Tensor], collectives: Collectives) -> float:
    """The same in float32 arithmetic: its rounding depends on how the elements are partitioned."""
    norm = torch.nn.utils.get_total_norm(shards).double().view(1)
    return float(collectives.all_reduce(norm.square()))
