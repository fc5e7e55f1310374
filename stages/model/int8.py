"""The scheme int8: each row of a weight is scaled to -127..127 and multiplied as integers.

A product also scales the activations of each token to int8 by the largest absolute value among them, multiplies
integers and scales the result back (the row-wise and token-wise scaling of LLM.int8(), arXiv 2208.07339, without its
separate handling of outliers). Integer sums are exact, so a token has the same result alone and in any batch, on any
machine. `quantization_schemes.py` says which weights are quantized.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # torch's customary name
from torch import Tensor, nn

LARGEST = 127  # -128 is unused, so that the range is symmetric
SMALLEST_SCALE = 1e-30  # for a row of zeros, whose scale may be anything but zero


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 with a scale for each row: [..., rows, columns] -> int8 of the same shape, float32 scales
    [..., rows].

    `int8 * scale` differs from the weight by at most half a scale.
    """
    weight = weight.float()
    scale = (weight.abs().amax(-1) / LARGEST).clamp_min(SMALLEST_SCALE)
    return (weight / scale[..., None]).round_().clamp_(-LARGEST, LARGEST).to(torch.int8), scale


def linear_int8(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x` [..., in] times the transpose of an int8 `weight` [out, in] with `scale` [out], plus `bias` [out].

    Returns [..., out] in the type of `x`.
    """
    rows = x.reshape(-1, x.shape[-1])
    x_scale = torch.linalg.vector_norm(rows, torch.inf, -1, True, dtype=torch.float32)
    x_scale = x_scale.div_(LARGEST).clamp_min_(SMALLEST_SCALE)
    # The view as one dimension and back gives every dimension its usual stride. The integer product reads out of
    # bounds where a dimension of size 1 has another one (pytorch issue 195066), and also with a single column.
    x_int8 = (rows / x_scale).round_().to(torch.int8).reshape(-1).view(rows.shape)
    if x.is_cuda or weight.shape[-1] == 1:
        # On CUDA the integer product needs at least 17 rows. Sums in float64 are exact as well.
        products = (x_int8.double() @ weight.double().T).float()
    else:
        products = torch._int_mm(x_int8, weight.t())
    output = products * x_scale * scale if bias is None else torch.addcmul(bias.float(), products * x_scale, scale)
    return output.to(x.dtype).view(*x.shape[:-1], -1)


class Int8Linear(nn.Module):
    """`nn.Linear` with an int8 weight [out, in] and float32 scales [out]."""

    weight: Tensor
    scale: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(out_features, in_features, dtype=torch.int8))
        self.register_buffer("scale", torch.zeros(out_features))
        self.bias = nn.Parameter(torch.zeros(out_features), requires_grad=False) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        return linear_int8(x, self.weight, self.scale, self.bias)


class Int8Embedding(nn.Module):
    """`TiedEmbedding` with an int8 weight: a lookup scales one row, the head multiplies by all rows."""

    weight: Tensor
    scale: Tensor

    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(vocab_size, hidden_size, dtype=torch.int8))
        self.register_buffer("scale", torch.zeros(vocab_size))

    def forward(self, tokens: Tensor) -> Tensor:
        """[...] token ids -> [..., hidden] float32"""
        return F.embedding(tokens, self.weight) * F.embedding(tokens, self.scale[:, None])

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] -> [..., vocabulary]"""
        return linear_int8(hidden, self.weight, self.scale)


class Int8ExpertLinear(nn.Module):
    """`ExpertLinear` with int8 weights [experts, out, in] and float32 scales [experts, out]."""

    weight: Tensor
    scale: Tensor

    def __init__(self, experts: int, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(experts, out_features, in_features, dtype=torch.int8))
        self.register_buffer("scale", torch.zeros(experts, out_features))
        self.bias = nn.Parameter(torch.zeros(experts, out_features), requires_grad=False) if bias else None

    def forward(self, x: Tensor, load: list[int]) -> Tensor:
        """The same as `ExpertLinear.forward`."""
        parts = [
            linear_int8(part, self.weight[expert], self.scale[expert], None if self.bias is None else self.bias[expert])
            for expert, part in enumerate(torch.split(x, load))
            if len(part)
        ]
        return torch.cat(parts)
