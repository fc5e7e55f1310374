"""The decoder: token embedding, pre-norm residual blocks of attention and feed-forward, final norm, head.

With its default config this is BLOOM (arXiv 2211.05100); other values of the config give other families. Parameters
have the names of Hugging Face's BLOOM, with `blocks` in place of `transformer.h`.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812  # torch's customary name
from torch import Tensor, nn

from stages.model import independent_rows, layers
from stages.model.cache import KeyValueCache
from stages.model.config import DecoderConfig
from stages.model.feed_forward import Routing, feed_forward
from stages.model.forward_pass import ForwardPass
from stages.model.rotary import rotate


class Attention(nn.Module):
    """Self-attention with one fused matrix for queries, keys and values.

    Each head of keys and values serves a group of query heads (grouped-query attention, arXiv 2305.13245). The rows of
    `query_key_value` are ordered by group: the queries of the group head by head, then its keys, then its values. With
    one group per head this is BLOOM's order.
    """

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.groups, self.head_size = layer, config.grouped_heads, config.head_size
        self.heads_of_group = config.heads // config.grouped_heads
        attended = config.heads * config.head_size
        fused = attended + 2 * config.grouped_heads * config.head_size
        self.query_key_value = layers.linear(config, config.hidden_size, fused)
        self.dense = layers.linear(config, attended, config.hidden_size)

    def forward(self, x: Tensor, shared: ForwardPass) -> Tensor:
        """[batch, length, hidden] -> [batch, length, hidden]"""
        batch, length, _ = x.shape
        fused = self.query_key_value(x).view(batch, length, self.groups, self.heads_of_group + 2, self.head_size)
        queries, key, value = fused.split([self.heads_of_group, 1, 1], 3)
        query, key, value = (part.flatten(2, 3).transpose(1, 2) for part in (queries, key, value))
        if shared.rotation is not None:
            query, key = rotate(query, shared.rotation), rotate(key, shared.rotation)
        if shared.cache is not None and shared.placement is not None:
            key, value = shared.cache.append(self.layer, shared.placement, key, value)
            mixed = independent_rows.attention(query, key, value, shared.bias, shared.placement.lengths)
        else:
            mixed = F.scaled_dot_product_attention(
                query, key, value, attn_mask=shared.bias, enable_gqa=self.heads_of_group > 1
            )
        output: Tensor = self.dense(mixed.transpose(1, 2).flatten(2))
        return output


class Block(nn.Module):
    """One layer: attention, then feed-forward. Each reads the normalised residual stream and adds to it."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = layers.norm(config)
        self.self_attention = Attention(config, layer)
        self.post_attention_layernorm = layers.norm(config)
        self.mlp = feed_forward(config, layer)

    def forward(self, x: Tensor, shared: ForwardPass) -> Tensor:
        x = x + self.self_attention(self.input_layernorm(x), shared)
        mixed: Tensor = self.mlp(self.post_attention_layernorm(x), shared.routings)
        return x + mixed


class ParallelBlock(nn.Module):
    """One layer in PaLM's form (arXiv 2204.02311, section 2): attention and feed-forward read the same normalised
    residual stream, and both are added to it."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = layers.norm(config)
        self.self_attention = Attention(config, layer)
        self.mlp = feed_forward(config, layer)

    def forward(self, x: Tensor, shared: ForwardPass) -> Tensor:
        normalised = self.input_layernorm(x)
        mixed: Tensor = self.self_attention(normalised, shared) + self.mlp(normalised, shared.routings)
        return x + mixed


class Decoder(nn.Module):
    """A language model: token ids in, logits out. Its weights come from `initialise` or from a checkpoint."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        block = ParallelBlock if config.parallel_blocks else Block
        self.word_embeddings = layers.embedding(config)
        self.position_embeddings = layers.positions(config)
        self.word_embeddings_layernorm = layers.embedding_norm(config)
        self.blocks = nn.ModuleList(block(config, layer) for layer in range(config.layers))
        self.ln_f = layers.norm(config)
        self.lm_head = layers.head(config)

    def forward(
        self,
        tokens: Tensor,
        *,
        documents: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Logits [batch, length, vocabulary] of `tokens` [batch, length]. `hidden_states` documents the arguments."""
        hidden = self.hidden_states(tokens, documents=documents, attention_mask=attention_mask, cache=cache)
        return self.logits(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """The head: [..., hidden] -> [..., vocabulary]. A separate method, so that losses can be computed in chunks."""
        logits: Tensor = self.word_embeddings.logits(hidden) if self.lm_head is None else self.lm_head(hidden)
        return logits

    @property
    def head_weight(self) -> Tensor:
        """The matrix of the head, [vocabulary, hidden]: the embedding if the two are tied."""
        return self.word_embeddings.weight if self.lm_head is None else self.lm_head.weight

    def hidden_states(
        self,
        tokens: Tensor,
        *,
        documents: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
        routings: list[Routing] | None = None,
    ) -> Tensor:
        """The input of the head, [batch, length, hidden]: the normalised output of the last layer, multiplied by
        `logit_scale`.

        tokens: [batch, length] token ids.
        documents: [batch, length] integers that differ between packed documents. Tokens attend only to earlier tokens
            of the same document, and positions are counted from the start of each document.
        attention_mask: [batch, length], 0 at padding, which may be on either side. Padding is neither attended to nor
            cached.
        cache: the tokens continue the cached sequences, row by row, and are cached in turn. It cannot be combined with
            `documents`.
        routings: an empty list that is filled with the routing of each mixture-of-experts layer, bottom first.

        Raises ValueError and CacheFullError as `ForwardPass.begin` does.
        """
        dtype = self.ln_f.weight.dtype
        shared = ForwardPass.begin(
            self.config,
            tokens,
            documents=documents,
            attention_mask=attention_mask,
            cache=cache,
            routings=routings,
            dtype=dtype,
        )
        x = self.position_embeddings(self.word_embeddings(tokens).to(dtype), shared.positions)
        x = self.word_embeddings_layernorm(x)
        for block in self.blocks:
            x = block(x, shared)
        if cache is not None:
            cache.advance(tokens.shape[1], attention_mask)
        hidden: Tensor = self.ln_f(x)
        return hidden if self.config.logit_scale == 1 else hidden * self.config.logit_scale
