"""The decoder: BLOOM's architecture (arXiv 2211.05100), as published, on any device.

Token embedding, LayerNorm, `layers` blocks of attention and feed-forward with pre-LayerNorm residuals, LayerNorm, and
a head tied to the embedding. Parameter names are those of Hugging Face's BLOOM, with `blocks` for its `transformer.h`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own customary name
from torch import Tensor, nn

from stages.model import alibi
from stages.model.cache import KeyValueCache, Placement
from stages.model.config import DecoderConfig
from stages.model.feed_forward import FeedForward, MixtureOfExperts, Routing
from stages.model.layers import embedding, linear


class Attention(nn.Module):
    """Multi-head self-attention with an additive bias; queries, keys and values from one fused matrix.

    The rows of `query_key_value` are ordered by head, then query, key, value within the head, as BLOOM has them.
    """

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.heads, self.head_size = layer, config.heads, config.head_size
        self.query_key_value = linear(config, config.hidden_size, 3 * config.hidden_size)
        self.dense = linear(config, config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, bias: Tensor, cache: KeyValueCache | None, placement: Placement | None) -> Tensor:
        batch, length, hidden = x.shape
        fused = self.query_key_value(x).view(batch, length, self.heads, 3, self.head_size)
        query, key, value = (part.transpose(1, 2) for part in fused.unbind(3))
        if cache is not None and placement is not None:
            key, value = cache.append(self.layer, placement, key, value)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        output: Tensor = self.dense(mixed.transpose(1, 2).reshape(batch, length, hidden))
        return output


class Block(nn.Module):
    """One layer: attention, then feed-forward, each on a normalised copy and added to the stream."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.self_attention = Attention(config, layer)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mlp = MixtureOfExperts(config, layer) if config.experts_of(layer) else FeedForward(config)

    def forward(
        self,
        x: Tensor,
        bias: Tensor,
        cache: KeyValueCache | None = None,
        placement: Placement | None = None,
        routings: list[Routing] | None = None,
    ) -> Tensor:
        x = x + self.self_attention(self.input_layernorm(x), bias, cache, placement)
        mixed: Tensor = self.mlp(self.post_attention_layernorm(x), routings)
        return x + mixed


class Decoder(nn.Module):
    """A language model: tokens in, logits out. `initialise` or a checkpoint gives it its weights."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embeddings = embedding(config)
        self.word_embeddings_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.ln_f = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)

    def forward(
        self,
        tokens: Tensor,
        *,
        documents: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Logits [batch, length, vocabulary] of `tokens` [batch, length]; arguments as in `hidden_states`."""
        hidden = self.hidden_states(tokens, documents=documents, attention_mask=attention_mask, cache=cache)
        return self.logits(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """The head: [..., hidden] -> [..., vocabulary]. Apart from `hidden_states` so that losses can be chunked."""
        logits: Tensor = self.word_embeddings.logits(hidden)
        return logits

    def hidden_states(
        self,
        tokens: Tensor,
        *,
        documents: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
        routings: list[Routing] | None = None,
    ) -> Tensor:
        """The last layer's normalised output [batch, length, hidden].

        documents: [batch, length] integers; tokens see only tokens of the same document before them (packing).
        attention_mask: [batch, length], 0 at padding, on either side; padding is never seen (nor cached).
        cache: the tokens go on from the cached ones, row by row, and are then cached themselves. Excludes `documents`.
        routings: an empty list that is filled with where each layer of experts sent the tokens, bottom first.
        """
        if cache is not None and documents is not None:
            raise ValueError("a cache holds one document a row: `documents` and `cache` exclude each other")
        placement = cache.place(tokens.shape[1], attention_mask) if cache is not None else None
        x = self.word_embeddings_layernorm(self.word_embeddings(tokens).to(self.ln_f.weight.dtype))
        bias = self._bias(tokens, documents, attention_mask, placement).to(x.dtype)
        for block in self.blocks:
            x = block(x, bias, cache, placement, routings)
        if cache is not None:
            cache.advance(tokens.shape[1], attention_mask)
        hidden: Tensor = self.ln_f(x)
        return hidden

    def _bias(
        self, tokens: Tensor, documents: Tensor | None, attention_mask: Tensor | None, placement: Placement | None
    ) -> Tensor:
        length = tokens.shape[1]
        head_slopes = torch.tensor(alibi.slopes(self.config.heads), device=tokens.device)
        if placement is not None:
            return alibi.attention_bias(head_slopes, placement.positions, placement.extent)
        bias = alibi.attention_bias(head_slopes, torch.arange(length, device=tokens.device)[None], length)
        if attention_mask is not None:
            # Padding is a document of its own: nobody else sees it, and its own rows of attention stay finite.
            real = attention_mask.bool()
            documents = real.long() if documents is None else torch.where(real, documents, -1)
        return bias if documents is None else alibi.separate(bias, documents)
