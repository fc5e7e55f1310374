"""AdamW on the ranges of flat groups that a rank owns."""

from __future__ import annotations

import torch

from stages.training.buffers import GroupBuffers
from stages.training.layout import ALIGNMENT
from stages.training.offload import Vectors
from stages.training.recipe import Recipe


def adamw(
    buffers: GroupBuffers, states: Vectors, recipe: Recipe, learning_rate: float, scale: float, step: int
) -> None:
    """One AdamW update (Loshchilov and Hutter, arXiv 1711.05101) of `states`, in place, with the gradient times
    `scale`.

    `step` counts from 1. The update runs on the device of `states`; a gradient on another device is copied there.
    """
    if buffers.gradient is None:
        return
    gradient = buffers.gradient.to(states["master"].device)
    divisor = torch.tensor(1 / scale, device=gradient.device)  # the kernel divides in the pass that it makes anyway
    updates = torch.tensor(float(step), device=gradient.device)
    for decayed in (True, False):
        part = _owned_range(buffers, decayed)
        if part is None:
            continue
        # The kernel rounds each element independently of its neighbours, and alignment keeps every shard vectorised.
        # torch.optim's wrapper around the same kernel would take half as long again for a small group.
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


def _owned_range(buffers: GroupBuffers, decayed: bool) -> slice | None:
    """The owned range of a group's matrices (`decayed`) or of its norms and biases, if there is one."""
    slots = [slot for slot in buffers.layout.slots if slot.decayed is decayed]
    if not slots:
        return None
    # Padding up to the next slot's aligned start belongs to the range before it, and stays zero.
    start = max(slots[0].offset, buffers.owned.start)
    stop = min(-(-slots[-1].end // ALIGNMENT) * ALIGNMENT, buffers.owned.stop)
    return slice(start - buffers.owned.start, stop - buffers.owned.start) if start < stop else None
