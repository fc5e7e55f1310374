"""Values that all layers share in one forward pass: the position of each token and the keys that it may attend to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.model import alibi, rotary
from stages.model.cache import KeyValueCache, Placement
from stages.model.config import DecoderConfig
from stages.model.feed_forward import Routing
from stages.model.rotary import Rotation


@dataclass(frozen=True)
class ForwardPass:
    """Everything that the blocks need in one forward pass, except the hidden states."""

    positions: Tensor  # [batch or 1, length]: each token's position in its document
    bias: Tensor  # [batch or 1, heads or 1, length, keys]: added to the scores; minus infinity masks a key
    rotation: Rotation | None = None  # for rotary positions
    cache: KeyValueCache | None = None
    placement: Placement | None = None  # the places of the tokens in the cache
    routings: list[Routing] | None = None  # filled with the routing of each mixture-of-experts layer

    @classmethod
    def begin(
        cls,
        config: DecoderConfig,
        tokens: Tensor,
        *,
        documents: Tensor | None,
        attention_mask: Tensor | None,
        cache: KeyValueCache | None,
        routings: list[Routing] | None,
        dtype: torch.dtype,
    ) -> ForwardPass:
        """Prepare a pass. `Decoder.hidden_states` documents the arguments; `dtype` is the type of the hidden states.

        Raises ValueError if `documents` and `cache` are both given or if there are more tokens than learned positions,
        CacheFullError if the tokens do not fit into the cache.
        """
        if cache is not None and documents is not None:
            raise ValueError("`documents` and `cache` cannot be combined: each row of a cache holds one document")
        length = tokens.shape[1]
        if config.position == "learned" and length > config.context_length:
            raise ValueError(f"a sequence has {length} tokens, but the model only {config.context_length} positions")
        head_slopes = torch.tensor(
            alibi.slopes(config.heads) if config.position == "alibi" else [0.0], device=tokens.device
        )
        if cache is not None:
            placement = cache.place(length, attention_mask)
            positions = placement.positions
            bias = attention_bias(head_slopes, positions, placement.extent)
        else:
            placement = None
            if attention_mask is not None:
                # Padding is a separate document: no token attends to it, and its own rows of attention stay finite.
                real = attention_mask.bool()
                documents = real.long() if documents is None else torch.where(real, documents, -1)
            indices = torch.arange(length, device=tokens.device)[None]
            positions = indices if documents is None else positions_in_documents(documents)
            bias = attention_bias(head_slopes, indices, length)
            bias = bias if documents is None else mask_other_documents(bias, documents)
        rotation = rotary.rotation(config, positions, dtype) if config.position == "rotary" else None
        return cls(positions, bias.to(dtype), rotation, cache, placement, routings)


def attention_bias(head_slopes: Tensor, query_positions: Tensor, key_count: int) -> Tensor:
    """The bias of queries at `query_positions` [batch, queries] on keys [0, `key_count`): slope times distance, and
    minus infinity on keys after the query. Shape [batch, heads, queries, keys].

    The distance is relative to the query, so that near keys keep full precision at any position. Softmax ignores a
    shift of a whole row, so this equals a bias by the position of the key. A slope of 0 leaves only the causal mask.
    """
    keys = torch.arange(key_count, device=query_positions.device)
    distance = keys - query_positions[:, None, :, None]
    bias = head_slopes[:, None, None] * distance
    return bias.masked_fill_(distance > 0, -math.inf)


def mask_other_documents(bias: Tensor, documents: Tensor) -> Tensor:
    """`bias` [1, heads, length, length] with minus infinity where query and key belong to different `documents`
    [batch, length]. Shape [batch, heads, length, length]."""
    same = documents[:, None, :, None] == documents[:, None, None, :]
    return torch.where(same, bias, -math.inf)


def positions_in_documents(documents: Tensor) -> Tensor:
    """The position of each token in its run of equal `documents` [batch, length], counted from 0."""
    indices = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return indices - torch.where(begins, indices, 0).cummax(1).values
