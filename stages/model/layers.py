"""The matrices of a decoder, in the form that its config names: linear maps, one an expert too, and the embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own customary name
from torch import Tensor, nn

from stages.model.config import DecoderConfig
from stages.model.quantized import QuantizedEmbedding, QuantizedExpertLinear, QuantizedLinear


class TiedEmbedding(nn.Embedding):
    """The token embedding, which is also the head: `logits` multiplies by the same matrix."""

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] -> [..., vocabulary]"""
        return F.linear(hidden, self.weight)


class ExpertLinear(nn.Module):
    """One linear map an expert, their weights stacked: [experts, out, in] and [experts, out]."""

    def __init__(self, experts: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.experts, self.in_features, self.out_features = experts, in_features, out_features
        self.weight = nn.Parameter(torch.empty(experts, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(experts, out_features))

    def forward(self, x: Tensor, load: list[int]) -> Tensor:
        """[tokens, in] -> [tokens, out], where the tokens are sorted by expert and expert e has `load[e]` of them."""
        parts = x.split(load)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        stretches = zip(parts, self.weight.unbind(0), self.bias.unbind(0), strict=True)
        return torch.cat([F.linear(part, weight, bias) for part, weight, bias in stretches if len(part)])


def linear(config: DecoderConfig, in_features: int, out_features: int) -> nn.Linear | QuantizedLinear:
    """A linear map with a bias."""
    return (QuantizedLinear if config.quantization else nn.Linear)(in_features, out_features)


def expert_linear(
    config: DecoderConfig, experts: int, in_features: int, out_features: int
) -> ExpertLinear | QuantizedExpertLinear:
    """A linear map with a bias for each expert."""
    return (QuantizedExpertLinear if config.quantization else ExpertLinear)(experts, in_features, out_features)


def embedding(config: DecoderConfig) -> TiedEmbedding | QuantizedEmbedding:
    """The token embedding, which is also the head."""
    return (QuantizedEmbedding if config.quantization else TiedEmbedding)(config.vocab_size, config.hidden_size)
