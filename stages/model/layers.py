"""The smallest parts of a decoder: linear maps, norms and embeddings, in the form that the config asks for.

The factory functions at the end choose the form. No other module of the model depends on how matrices are stored or
which normalisation is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stages.model import independent_rows
from stages.model.config import DecoderConfig, QuantizationName
from stages.model.float32_accumulation import LayerNorm, lookup
from stages.model.int8 import Int8Embedding, Int8ExpertLinear, Int8Linear
from stages.model.parameters import Role
from stages.model.quantization_schemes import SCHEMES


class Linear(nn.Linear):
    """`nn.Linear` whose rows do not depend on each other, not even in the last bit, when there are no gradients."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        return independent_rows.linear(input, self.weight, self.bias)


class TiedEmbedding(nn.Embedding):
    """The token embedding, which can also be the head: `logits` multiplies by the same matrix."""

    def forward(self, input: Tensor) -> Tensor:
        """[...] token ids -> [..., hidden]"""
        return lookup(input, self.weight)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] -> [..., vocabulary]"""
        return independent_rows.linear(hidden, self.weight)


class LearnedPositions(nn.Module):
    """A learned vector for each position, added to the embeddings. The first `offset` rows belong to no position."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.offset = config.position_offset
        self.weight = nn.Parameter(torch.empty(config.context_length + self.offset, config.hidden_size))

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """`x` [batch, length, hidden] plus the vectors of `positions` [batch or 1, length]."""
        return x + lookup(positions + self.offset, self.weight)


class NoPositions(nn.Module):
    """Adds nothing: for models in which only attention depends on positions."""

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        return x


class ExpertLinear(nn.Module):
    """One linear map for each expert, with stacked weights [experts, out, in] and biases [experts, out]."""

    def __init__(self, experts: int, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.experts, self.in_features, self.out_features = experts, in_features, out_features
        self.weight = nn.Parameter(torch.empty(experts, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(experts, out_features)) if bias else None

    def forward(self, x: Tensor, load: list[int]) -> Tensor:
        """[tokens, in] -> [tokens, out], where the tokens are sorted by expert and expert e gets `load[e]` of them."""
        parts = torch.split(x, load)
        biases = [None] * self.experts if self.bias is None else self.bias.unbind(0)
        by_expert = zip(parts, self.weight.unbind(0), biases, strict=True)
        return torch.cat([independent_rows.linear(part, weight, bias) for part, weight, bias in by_expert if len(part)])


@dataclass(frozen=True)
class _MatrixTypes:
    """The modules that hold matrices in one form."""

    linear: type[Linear | Int8Linear]
    expert_linear: type[ExpertLinear | Int8ExpertLinear]
    embedding: type[TiedEmbedding | Int8Embedding]


_FLOATING_POINT = _MatrixTypes(Linear, ExpertLinear, TiedEmbedding)
_QUANTIZED: Mapping[QuantizationName, _MatrixTypes] = {
    "int8": _MatrixTypes(Int8Linear, Int8ExpertLinear, Int8Embedding),
}


def _matrix_types(config: DecoderConfig, role: Role) -> _MatrixTypes:
    if config.quantization is None or role not in SCHEMES[config.quantization].roles:
        return _FLOATING_POINT
    return _QUANTIZED[config.quantization]


def linear(config: DecoderConfig, in_features: int, out_features: int) -> Linear | Int8Linear:
    """A linear map, with a bias if the model has biases."""
    return _matrix_types(config, "linear").linear(in_features, out_features, config.biases)


def expert_linear(
    config: DecoderConfig, experts: int, in_features: int, out_features: int
) -> ExpertLinear | Int8ExpertLinear:
    """A linear map for each expert, with biases if the model has them."""
    return _matrix_types(config, "linear").expert_linear(experts, in_features, out_features, config.biases)


def embedding(config: DecoderConfig) -> TiedEmbedding | Int8Embedding:
    """The token embedding, which is also the head if the two are tied."""
    return _matrix_types(config, "embedding").embedding(config.vocab_size, config.hidden_size)


def head(config: DecoderConfig) -> Linear | Int8Linear | None:
    """The head; None if it is tied to the embedding."""
    if config.tied_head:
        return None
    return _matrix_types(config, "head").linear(config.hidden_size, config.vocab_size, False)


def norm(config: DecoderConfig) -> nn.LayerNorm | nn.RMSNorm:
    """A normalisation over the hidden size."""
    if config.normalisation == "rms":
        return nn.RMSNorm(config.hidden_size, config.layer_norm_epsilon)
    return LayerNorm(config.hidden_size, config.layer_norm_epsilon, bias=config.biases)


def embedding_norm(config: DecoderConfig) -> nn.Module:
    """The normalisation of the embeddings; the identity if the model has none."""
    return norm(config) if config.embedding_norm else nn.Identity()


def positions(config: DecoderConfig) -> LearnedPositions | NoPositions:
    """The module that adds learned positions to the embeddings, if the model has them."""
    return LearnedPositions(config) if config.position == "learned" else NoPositions()
