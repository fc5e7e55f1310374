"""AdamW by function against torch's class."""

from __future__ import annotations

import copy

import torch

from stages.entity_alignment.optimizer import AdamW


def test_the_steps_are_those_of_torchs_class_also_after_a_restart() -> None:
    torch.manual_seed(0)
    ours = [
        torch.randn(4, 3, requires_grad=True),
        torch.randn(5, requires_grad=True),
        torch.zeros(2, requires_grad=True),
    ]
    theirs = copy.deepcopy(ours)
    reference, optimizer = torch.optim.AdamW(theirs, weight_decay=0.1, eps=1e-8), AdamW(ours, 0.1)
    for step in range(6):
        rate = 0.1 / (step + 1)
        reference.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        reference.zero_grad()
        for own, other in zip(ours[:2], theirs[:2], strict=True):  # the last one never has a gradient
            own.grad = torch.randn(own.shape)
            other.grad = own.grad.clone()
        reference.step()
        optimizer.step(rate)
        if step == 2:
            state = {name: [one.clone() for one in values] for name, values in optimizer.state().items()}
            optimizer = AdamW(ours, 0.1)
            optimizer.restore(state)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, atol=0, rtol=0)
