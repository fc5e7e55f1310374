"""Fuses the modalities of an entity: by a transformer over them (meta), by global weights, or without weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from stages.entity_alignment.settings import ModelSettings

EPSILON = 1e-12  # of LayerNorm


@dataclass(frozen=True)
class Fused:
    """Of n entities with M modalities."""

    joint: Tensor  # [n, M * width]
    weights: Tensor  # [n, M]
    tokens: Tensor | None  # [n, M, width] after the transformer; None without one


class MetaFusion(nn.Module):
    """BERT layers over the modalities of each entity, and the entity's own weight of each modality.

    w_m = softmax_m(sum over queries j and heads of A[j, m] / sqrt(M * heads)), A the last layer's attention after its
    dropout; the joint vector concatenates w_m * normalize(h_m), with h_m from before the transformer. With trust t_m,
    the weights are w_m * t_m over their sum.
    """

    def __init__(self, settings: ModelSettings, modalities: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FusionLayer(settings) for _ in range(settings.fusion_layers))
        self._scale = 1 / math.sqrt(modalities * settings.fusion_heads)

    def forward(self, h: Tensor, trust: Tensor | None = None) -> Fused:
        """h [n, M, width]; trust [n, M], above 0."""
        tokens = h
        for layer in self.layers:
            tokens, attention = layer(tokens)
        weights = _weights(attention.sum(dim=(1, 2)) * self._scale, trust)
        return Fused(_joint(h, weights), weights, tokens)


class FusionLayer(nn.Module):
    """One post-norm BERT layer without positions. Returns the tokens and the attention [n, heads, M, M]."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width = settings.width
        self._heads, self._dropout = settings.fusion_heads, settings.dropout
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=EPSILON)
        self.feed_forward = bool(settings.intermediate)
        if self.feed_forward:
            self.inner = nn.Linear(width, settings.intermediate)
            self.outer = nn.Linear(settings.intermediate, width)
            self.outer_norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        n, m, width = tokens.shape
        query, key, value = (
            project(tokens).view(n, m, self._heads, width // self._heads).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(width // self._heads)
        attention = self._drop(F.softmax(scores, dim=-1))
        context = (attention @ value).transpose(1, 2).reshape(n, m, width)
        tokens = self.attention_norm(self._drop(self.output(context)) + tokens)
        if self.feed_forward:
            tokens = self.outer_norm(self._drop(self.outer(F.gelu(self.inner(tokens)))) + tokens)
        return tokens, attention

    def _drop(self, values: Tensor) -> Tensor:
        return F.dropout(values, self._dropout, self.training)


class GlobalFusion(nn.Module):
    """One learned weight a modality, the same for all entities (EVA, MCLEA); fixed equal weights if not `learned`."""

    def __init__(self, modalities: int, learned: bool) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(modalities), requires_grad=learned)

    def forward(self, h: Tensor, trust: Tensor | None = None) -> Fused:
        """h [n, M, width]; trust [n, M], above 0."""
        weights = _weights(self.logits.expand(h.shape[:2]), trust)
        return Fused(_joint(h, weights), weights, None)


def _weights(logits: Tensor, trust: Tensor | None) -> Tensor:
    return F.softmax(logits if trust is None else logits + trust.log(), dim=-1)


def _joint(h: Tensor, weights: Tensor) -> Tensor:
    return (weights.unsqueeze(-1) * F.normalize(h, dim=-1)).flatten(1)
