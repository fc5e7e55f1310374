"""The cross-entropy of the head, computed for a few tokens at a time so that the logits of a batch are never held at
once.

In training, the gradient of each chunk of logits is formed in place as soon as its loss is known: there is no second
copy, and the backward pass does not visit the logits again. At a vocabulary of 4096 this takes two thirds of the time
of a matrix product followed by `cross_entropy`; at BLOOM's vocabulary of 250,880 it saves 3 MB for every token of a
micro-batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from stages.model.decoder import Decoder

ROWS = 128  # tokens in a chunk: enough for fast matrix products, few enough for the CPU cache at a small vocabulary


def cross_entropy(model: Decoder, hidden: Tensor, targets: Tensor) -> Tensor:
    """The sum of the cross-entropies (nats, float32 scalar) of `targets` [...] given final hidden states
    [..., hidden]."""
    if not torch.is_grad_enabled():
        return token_losses(model, hidden, targets).sum()
    total: Tensor = _HeadCrossEntropy.apply(hidden.flatten(0, -2), model.head_weight, targets.flatten())  # type: ignore[no-untyped-call]
    return total


def token_losses(model: Decoder, hidden: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy (nats, float32) of each of `targets` [...] given final hidden states [..., hidden], without
    gradients. Returns a flat tensor with one number for each target."""
    chunks = zip(torch.split(hidden.flatten(0, -2), ROWS), torch.split(targets.flatten(), ROWS), strict=True)
    losses = [functional.cross_entropy(model.logits(part).float(), wanted, reduction="none") for part, wanted in chunks]
    return torch.cat(losses)


class _HeadCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_gradient = torch.empty_like(hidden)
        trained = ctx.needs_input_grad[1]  # a frozen head has no gradient, which would be as large as the head
        weight_gradient = torch.zeros(weight.shape if trained else 0, dtype=torch.float32, device=weight.device)
        for start in range(0, len(hidden), ROWS):
            part, wanted = hidden[start : start + ROWS], targets[start : start + ROWS, None]
            logits = functional.linear(part, weight).float()
            logits.sub_(logits.amax(1, keepdim=True))
            target_logits = logits.gather(1, wanted)
            exponentials = logits.exp_()
            sums = exponentials.sum(1, keepdim=True)
            total += (sums.log() - target_logits).sum()
            # The gradient with respect to the logits is the softmax, minus 1 at the target.
            gradient = exponentials.mul_(1 / sums)
            gradient.scatter_add_(1, wanted, gradient.new_full(wanted.shape, -1.0))
            torch.mm(gradient.to(weight.dtype), weight, out=hidden_gradient[start : start + ROWS])
            if trained:
                weight_gradient.addmm_(gradient.T, part.float())
        ctx.save_for_backward(hidden_gradient, weight_gradient.to(weight.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        trained = ctx.needs_input_grad[1]
        return hidden_gradient * gradient, weight_gradient * gradient if trained else None, None
