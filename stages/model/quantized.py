"""Matrices in int8: each row of a weight scaled to -127..127, and computed with as integers.

Every matrix is quantized, the embedding (which is also the head) included; norms, biases and the gates of experts are
not: they are small, and a gate's choices hang on small differences. A product scales each token's activations to
int8 too, by that token's largest value, multiplies integers and scales back. Integer sums are exact: a token's result
is the same alone and in any batch, on any machine.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own customary name
from torch import Tensor, nn

LARGEST = 127  # -128 is left unused, so that the range is symmetric
SMALLEST_SCALE = 1e-30  # of a row of zeros, whose scale may be anything but zero


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 with a scale for each row: [..., rows, columns] -> int8 of that shape, fp32 scales [..., rows].

    `int8 * scale` differs from the weight by at most half a scale.
    """
    weight = weight.float()
    scale = (weight.abs().amax(-1) / LARGEST).clamp_min(SMALLEST_SCALE)
    return (weight / scale[..., None]).round_().clamp_(-LARGEST, LARGEST).to(torch.int8), scale


def linear_int8(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x` [..., in] times the transpose of an int8 `weight` [out, in] with `scale` [out], plus `bias` [out]."""
    rows = x.reshape(-1, x.shape[-1])
    x_scale = torch.linalg.vector_norm(rows, torch.inf, -1, True, dtype=torch.float32)
    x_scale = x_scale.div_(LARGEST).clamp_min_(SMALLEST_SCALE)
    # Viewed flat and back, as the integer product reads past a dimension of size 1 whose stride is not its usual one
    # (pytorch issue 195066); for the same reason it is not used with a single column.
    x_int8 = (rows / x_scale).round_().to(torch.int8).reshape(-1).view(rows.shape)
    if x.is_cuda or weight.shape[-1] == 1:
        # On CUDA it wants at least 17 rows. In fp64 the same sums are exact too.
        products = (x_int8.double() @ weight.double().T).float()
    else:
        products = torch._int_mm(x_int8, weight.t())
    output = products * x_scale * scale if bias is None else torch.addcmul(bias.float(), products * x_scale, scale)
    return output.to(x.dtype).view(*x.shape[:-1], -1)


class QuantizedLinear(nn.Module):
    """`nn.Linear` with an int8 weight."""

    weight: Tensor
    scale: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(out_features, in_features, dtype=torch.int8))
        self.register_buffer("scale", torch.zeros(out_features))
        self.bias = nn.Parameter(torch.zeros(out_features), requires_grad=False) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return linear_int8(x, self.weight, self.scale, self.bias)


class QuantizedEmbedding(nn.Module):
    """`TiedEmbedding` with an int8 weight: a lookup scales one row, the head multiplies by all."""

    weight: Tensor
    scale: Tensor

    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(vocab_size, hidden_size, dtype=torch.int8))
        self.register_buffer("scale", torch.zeros(vocab_size))

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.weight) * F.embedding(tokens, self.scale[:, None])

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] -> [..., vocabulary]"""
        return linear_int8(hidden, self.weight, self.scale)


class QuantizedExpertLinear(nn.Module):
    """`ExpertLinear` with int8 weights."""

    weight: Tensor
    scale: Tensor

    def __init__(self, experts: int, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(experts, out_features, in_features, dtype=torch.int8))
        self.register_buffer("scale", torch.zeros(experts, out_features))
        self.bias = nn.Parameter(torch.zeros(experts, out_features), requires_grad=False) if bias else None

    def forward(self, x: Tensor, load: list[int]) -> Tensor:
        """As `ExpertLinear.forward`."""
        parts = [
            linear_int8(part, self.weight[expert], self.scale[expert], None if self.bias is None else self.bias[expert])
            for expert, part in enumerate(x.split(load))  # type: ignore[no-untyped-call]  # torch leaves it untyped
            if len(part)
        ]
        return torch.cat(parts)
