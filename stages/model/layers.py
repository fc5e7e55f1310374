"""The smallest parts of a decoder, in the form that its config names: linear maps, norms, embeddings.

The functions at the end choose; nothing else of the model asks how matrices are stored or which norm it has.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own customary name
from torch import Tensor, nn

from stages.model.config import DecoderConfig
from stages.model.quantized import QuantizedEmbedding, QuantizedExpertLinear, QuantizedLinear
from stages.model.widened import LayerNorm, lookup


class TiedEmbedding(nn.Embedding):
    """The token embedding, which is also the head: `logits` multiplies by the same matrix."""

    def forward(self, input: Tensor) -> Tensor:
        """[...] tokens -> [..., hidden]"""
        return lookup(input, self.weight)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] -> [..., vocabulary]"""
        return F.linear(hidden, self.weight)


class LearnedPositions(nn.Module):
    """A learned vector for each position, added to the embeddings; the first `offset` rows belong to no position."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.offset = config.position_offset
        self.weight = nn.Parameter(torch.empty(config.context_length + self.offset, config.hidden_size))

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """`x` [batch, length, hidden] with the vectors of `positions` [batch or 1, length] added."""
        return x + lookup(positions + self.offset, self.weight)


class NoPositions(nn.Module):
    """For models whose attention alone knows positions."""

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        return x


class ExpertLinear(nn.Module):
    """One linear map an expert, their weights stacked: [experts, out, in] and [experts, out]."""

    def __init__(self, experts: int, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.experts, self.in_features, self.out_features = experts, in_features, out_features
        self.weight = nn.Parameter(torch.empty(experts, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(experts, out_features)) if bias else None

    def forward(self, x: Tensor, load: list[int]) -> Tensor:
        """[tokens, in] -> [tokens, out], where the tokens are sorted by expert and expert e has `load[e]` of them."""
        parts = x.split(load)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        biases = [None] * self.experts if self.bias is None else self.bias.unbind(0)
        stretches = zip(parts, self.weight.unbind(0), biases, strict=True)
        return torch.cat([F.linear(part, weight, bias) for part, weight, bias in stretches if len(part)])


def linear(config: DecoderConfig, in_features: int, out_features: int) -> nn.Linear | QuantizedLinear:
    """A linear map, with a bias if the model has biases."""
    return (QuantizedLinear if config.quantization else nn.Linear)(in_features, out_features, config.biases)


def expert_linear(
    config: DecoderConfig, experts: int, in_features: int, out_features: int
) -> ExpertLinear | QuantizedExpertLinear:
    """A linear map for each expert, with biases if the model has them."""
    kind = QuantizedExpertLinear if config.quantization else ExpertLinear
    return kind(experts, in_features, out_features, config.biases)


def norm(config: DecoderConfig) -> nn.LayerNorm | nn.RMSNorm:
    """A normalisation of the hidden size."""
    if config.normalisation == "rms":
        return nn.RMSNorm(config.hidden_size, config.layer_norm_epsilon)
    return LayerNorm(config.hidden_size, config.layer_norm_epsilon, bias=config.biases)


def embedding(config: DecoderConfig) -> TiedEmbedding | QuantizedEmbedding:
    """The token embedding, which may also be the head."""
    return (QuantizedEmbedding if config.quantization else TiedEmbedding)(config.vocab_size, config.hidden_size)


def embedding_norm(config: DecoderConfig) -> nn.Module:
    """What normalises the embeddings, or leaves them as they are."""
    return norm(config) if config.embedding_norm else nn.Identity()


def positions(config: DecoderConfig) -> LearnedPositions | NoPositions:
    """What adds positions to the embeddings. They stay in floating point: they are never multiplied by."""
    return LearnedPositions(config) if config.position == "learned" else NoPositions()


def head(config: DecoderConfig) -> nn.Linear | QuantizedLinear | None:
    """The head, if it is not the embedding."""
    if config.tied_head:
        return None
    kind = QuantizedLinear if config.quantization else nn.Linear
    return kind(config.hidden_size, config.vocab_size, bias=False)
