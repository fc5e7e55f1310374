"""Backward passes that add up in float32 where torch's kernels for the CPU add up in half precision.

The gradients of a norm's weight and bias are sums over all tokens, that of an embedding's row over those with its
token. In bfloat16 such a sum stands still at 256 times what is added to it; torch also keeps the norm's statistics
rounded to 8 bits. With 4096 tokens in a micro-batch a tenth to two fifths of the gradients of norms were lost. The
forward passes are torch's own, and so are both passes in float32 and on GPUs, whose kernels add up in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own customary name
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ROWS = 256  # tokens of a norm that are widened at a time
COLUMNS = 64  # of an embedding's gradient that are widened at a time


class LayerNorm(nn.LayerNorm):
    """torch's, with exact sums in its backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        if not _adds_up_in_half(x):
            return super().forward(x)
        normalised: Tensor = _LayerNorm.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        return normalised


def lookup(tokens: Tensor, weight: Tensor) -> Tensor:
    """The rows of `weight` [rows, hidden] at `tokens` [...], with exact sums in the backward pass: [..., hidden]."""
    if not _adds_up_in_half(weight):
        return F.embedding(tokens, weight)
    found: Tensor = _Lookup.apply(tokens, weight)  # type: ignore[no-untyped-call]
    return found


def _adds_up_in_half(tensor: Tensor) -> bool:
    return tensor.dtype != torch.float32 and tensor.device.type == "cpu" and torch.is_grad_enabled()


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.epsilon, ctx.biased = epsilon, bias is not None
        return F.layer_norm(x, weight.shape, weight, bias, epsilon)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x = torch.empty_like(gradient)
        of_weight, of_bias = torch.zeros(2, *weight.shape).unbind(0)
        rows = zip(*(whole.flatten(0, -2).split(ROWS) for whole in (x, gradient, of_x)), strict=True)
        for part, coming, leaving in rows:
            wide = part.float()
            variance, mean = torch.var_mean(wide, -1, correction=0, keepdim=True)
            normal = wide.sub_(mean).mul_((variance + ctx.epsilon).rsqrt_())
            coming = coming.float()
            of_bias += coming.sum(0)
            of_weight += (coming * normal).sum(0)
            scaled = coming.mul_(weight.float())
            along = (scaled * normal).mean(-1, keepdim=True)
            scaled = scaled.sub_(scaled.mean(-1, keepdim=True)).sub_(normal.mul_(along))
            leaving.copy_(scaled.mul_((variance + ctx.epsilon).rsqrt_()))
        return of_x, of_weight.to(weight.dtype), of_bias.to(weight.dtype) if ctx.biased else None, None


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.shape, ctx.dtype = weight.shape, weight.dtype
        return F.embedding(tokens, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        (tokens,) = ctx.saved_tensors
        found, places = torch.unique(tokens, return_inverse=True)
        of_weight = torch.zeros(ctx.shape, dtype=ctx.dtype)
        columns = zip(gradient.split(COLUMNS, -1), of_weight.split(COLUMNS, -1), strict=True)
        for coming, leaving in columns:
            sums = torch.ops.aten.embedding_dense_backward(coming.float(), places, len(found), -1, False)
            leaving.index_copy_(0, found, sums.to(ctx.dtype))
        return None, of_weight
