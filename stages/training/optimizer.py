"""AdamW on the stretches of flat groups that a rank owns."""

from __future__ import annotations

import torch

from stages.training.buffers import Buffers
from stages.training.layout import ALIGNMENT
from stages.training.offload import Vectors
from stages.training.recipe import Recipe


def adamw(buffers: Buffers, states: Vectors, recipe: Recipe, learning_rate: float, scale: float, step: int) -> None:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) with the gradient times `scale`; `step` counts from 1.

    Works where `states` are: a gradient on another device is brought there.
    """
    if buffers.gradient is None:
        return
    gradient = buffers.gradient.to(states["master"].device)
    divisor = torch.tensor(1 / scale, device=gradient.device)  # the kernel divides, in the pass that it makes anyway
    updates = torch.tensor(float(step), device=gradient.device)
    for decayed in (True, False):
        part = _stretch(buffers, decayed)
        if part is None:
            continue
        # It rounds each element once whatever its neighbours are; shards keep it vectorised. What torch.optim puts
        # around this kernel would take half as long again for a small group.
        torch._fused_adamw_(
            [states["master"][part]],
            [gradient[part]],
            [states["first_moment"][part]],
            [states["second_moment"][part]],
            [],
            [updates],
            lr=learning_rate,
            beta1=recipe.beta1,
            beta2=recipe.beta2,
            weight_decay=recipe.weight_decay if decayed else 0.0,
            eps=recipe.epsilon,
            amsgrad=False,
            maximize=False,
            grad_scale=divisor,
        )


def _stretch(buffers: Buffers, decayed: bool) -> slice | None:
    """The owned stretch of a group that holds matrices (`decayed`) or norms and biases, if there is one."""
    slots = [slot for slot in buffers.layout.slots if slot.decayed is decayed]
    if not slots:
        return None
    # Up to the next slot's aligned start: padding belongs to the stretch before it, and stays zero.
    start = max(slots[0].offset, buffers.owned.start)
    stop = min(-(-slots[-1].end // ALIGNMENT) * ALIGNMENT, buffers.owned.stop)
    return slice(start - buffers.owned.start, stop - buffers.owned.start) if start < stop else None
