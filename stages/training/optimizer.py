"""AdamW on the stretches of flat groups that a rank owns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

from stages.training.buffers import Buffers
from stages.training.layout import ALIGNMENT
from stages.training.recipe import Recipe


def adamw(groups: Sequence[Buffers], recipe: Recipe, learning_rate: float, scale: float, step: int) -> None:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) with the gradient times `scale`; `step` counts from 1."""
    for decayed in (True, False):
        parts = [part for buffers in groups for part in _stretches(buffers, decayed)]
        if not parts:
            continue
        masters, gradients, first_moments, second_moments = (list(column) for column in zip(*parts, strict=True))
        for gradient in gradients:
            gradient.mul_(scale)
        # The fused kernel rounds each element once whatever its neighbours are; shards keep it vectorised.
        adam(
            masters,
            gradients,
            first_moments,
            second_moments,
            [],
            [torch.tensor(float(step - 1), device=masters[0].device) for _ in masters],
            fused=True,
            decoupled_weight_decay=True,
            amsgrad=False,
            maximize=False,
            lr=learning_rate,
            beta1=recipe.beta1,
            beta2=recipe.beta2,
            eps=recipe.epsilon,
            weight_decay=recipe.weight_decay if decayed else 0.0,
        )


def _stretches(buffers: Buffers, decayed: bool) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The owned stretch of a group that holds matrices (`decayed`) or norms and biases, if there is one."""
    slots = [slot for slot in buffers.layout.slots if slot.decayed is decayed]
    if not slots or buffers.gradient is None:
        return []
    # Up to the next slot's aligned start: padding belongs to the stretch before it, and stays zero.
    start = max(slots[0].offset, buffers.owned.start)
    stop = min(-(-slots[-1].end // ALIGNMENT) * ALIGNMENT, buffers.owned.stop)
    if start >= stop:
        return []
    part = slice(start - buffers.owned.start, stop - buffers.owned.start)
    return [(buffers.master[part], buffers.gradient[part], buffers.first_moment[part], buffers.second_moment[part])]
