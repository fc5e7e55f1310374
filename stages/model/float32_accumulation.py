"""LayerNorm and embedding lookup whose backward passes accumulate in float32 on CPUs.

The gradients of the weight and bias of a norm are sums over all tokens; that of a row of an embedding is a sum over the
tokens with its id. torch's CPU kernels accumulate these sums in half precision. In bfloat16 a sum stops growing at 256
times the size of its terms, and torch also rounds the statistics of the norm to 8 bits: with 4096 tokens in a
micro-batch, between a tenth and two fifths of the gradients of norms were lost.

The forward passes are torch's own. So are both passes in float32 and on GPUs, whose kernels accumulate in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # torch's customary name
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ROWS = 256  # tokens of a norm that are converted to float32 at a time
COLUMNS = 64  # columns of the gradient of an embedding that are converted to float32 at a time


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` with float32 sums in its backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., hidden]"""
        if not _accumulates_in_half(x):
            return super().forward(x)
        normalised: Tensor = _LayerNorm.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        return normalised


def lookup(tokens: Tensor, weight: Tensor) -> Tensor:
    """The rows of `weight` [rows, hidden] at `tokens` [...]: [..., hidden]. The backward pass has float32 sums."""
    if not _accumulates_in_half(weight):
        return F.embedding(tokens, weight)
    found: Tensor = _Lookup.apply(tokens, weight)  # type: ignore[no-untyped-call]
    return found


def _accumulates_in_half(tensor: Tensor) -> bool:
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
        x_gradient = torch.empty_like(gradient)
        weight_gradient, bias_gradient = torch.zeros(2, *weight.shape).unbind(0)
        rows = zip(*(torch.split(whole.flatten(0, -2), ROWS) for whole in (x, gradient, x_gradient)), strict=True)
        for part, incoming, outgoing in rows:
            wide = part.float()
            variance, mean = torch.var_mean(wide, -1, correction=0, keepdim=True)
            normalised = wide.sub_(mean).mul_((variance + ctx.epsilon).rsqrt_())
            incoming = incoming.float()
            bias_gradient += incoming.sum(0)
            weight_gradient += (incoming * normalised).sum(0)
            scaled = incoming.mul_(weight.float())
            projection = (scaled * normalised).mean(-1, keepdim=True)
            scaled = scaled.sub_(scaled.mean(-1, keepdim=True)).sub_(normalised.mul_(projection))
            outgoing.copy_(scaled.mul_((variance + ctx.epsilon).rsqrt_()))
        biased = bias_gradient.to(weight.dtype) if ctx.biased else None
        return x_gradient, weight_gradient.to(weight.dtype), biased, None


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
        weight_gradient = torch.zeros(ctx.shape, dtype=ctx.dtype)
        columns = zip(torch.split(gradient, COLUMNS, -1), torch.split(weight_gradient, COLUMNS, -1), strict=True)
        for incoming, outgoing in columns:
            sums = torch.ops.aten.embedding_dense_backward(incoming.float(), places, len(found), -1, False)
            outgoing.index_copy_(0, found, sums.to(ctx.dtype))
        return None, weight_gradient
