"""The key-value cache: what decoding remembers, for a batch of sequences that each have their own length.

Every sequence has a row. `rows` gives a view of some of them that shares the memory, so that one sequence can be
filled while others wait; `move` and `clear` let an engine keep the running ones together at the front.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.model.config import DecoderConfig


class CacheFullError(ValueError):
    """A sequence would grow beyond the cache's capacity."""


@dataclass(frozen=True)
class Placement:
    """Where the tokens of one forward pass go in the cache."""

    positions: Tensor  # [batch or 1, tokens]: each token's position in its sequence
    extent: int  # cached positions that the pass attends over: the longest sequence's new length
    start: int | None  # if every row is filled from the same position on: that position
    targets: tuple[Tensor, Tensor] | None  # else (row, position) of each real token, in order
    real: Tensor | None  # [batch, tokens] bool: which tokens are real; None: all


class KeyValueCache:
    """Keys and values of `sequences` sequences of up to `capacity` tokens, a pair of tensors for each layer.

    `keys[layer]` and `values[layer]` have the shape [sequences, key-value heads, capacity, head size]; `lengths`
    [sequences] says how many positions of each are filled. What lies beyond is never attended to.
    """

    keys: list[Tensor]
    values: list[Tensor]
    lengths: Tensor

    def __init__(
        self,
        config: DecoderConfig,
        sequences: int,
        capacity: int | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        capacity = config.context_length if capacity is None else capacity
        if not 0 < capacity <= config.context_length:
            raise ValueError(f"a cache of {capacity} tokens: the model's context has {config.context_length}")
        shape = (sequences, config.grouped_heads, capacity, config.head_size)
        # Zeros and not uninitialised memory: masked positions weigh nothing, but nothing times NaN is NaN.
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.layers)]
        self.lengths = torch.zeros(sequences, dtype=torch.int64)

    @property
    def sequences(self) -> int:
        return self.keys[0].shape[0]

    @property
    def capacity(self) -> int:
        return self.keys[0].shape[2]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))

    def rows(self, start: int, stop: int) -> KeyValueCache:
        """The sequences `start` to `stop` as a cache of their own that shares this one's memory and lengths."""
        view = object.__new__(KeyValueCache)
        view.keys = [tensor[start:stop] for tensor in self.keys]
        view.values = [tensor[start:stop] for tensor in self.values]
        view.lengths = self.lengths[start:stop]
        return view

    def clear(self, row: int) -> None:
        """Forget a sequence."""
        self.lengths[row] = 0

    def truncate(self, row: int, length: int) -> None:
        """Forget what follows the first `length` tokens of a sequence."""
        if not 0 <= length <= int(self.lengths[row]):
            raise ValueError(f"sequence {row} has {int(self.lengths[row])} tokens, cannot keep {length}")
        self.lengths[row] = length

    def move(self, source: int, target: int) -> None:
        """Move a sequence to another row, whose sequence is forgotten; the source row is empty afterwards."""
        if source == target:
            return
        length = int(self.lengths[source])
        for tensor in (*self.keys, *self.values):
            tensor[target, :, :length] = tensor[source, :, :length]
        self.lengths[target] = length
        self.lengths[source] = 0

    def place(self, tokens: int, attention_mask: Tensor | None = None) -> Placement:
        """Where `tokens` new tokens of each row go; padding (false in `attention_mask` [batch, tokens]) goes nowhere.

        Raises CacheFullError if a sequence has no room for them.
        """
        before = self.lengths.tolist()
        if attention_mask is None:
            self._refuse_overflow([length + tokens for length in before])
            device = self.keys[0].device
            steps = torch.arange(tokens, device=device)
            if len(set(before)) == 1:
                return Placement((before[0] + steps)[None], before[0] + tokens, before[0], None, None)
            positions = self.lengths.to(device)[:, None] + steps
            rows = torch.arange(len(before), device=device)[:, None].expand_as(positions)
            return Placement(positions, max(before) + tokens, None, (rows, positions), None)
        real = attention_mask.bool()
        counts = real.sum(1).tolist()
        self._refuse_overflow([length + count for length, count in zip(before, counts, strict=True)])
        # A padding token stands where its neighbour does, so that its (unused) row of attention is finite.
        positions = self.lengths.to(real.device)[:, None] + (real.cumsum(1) - 1).clamp_min(0)
        extent = max(1, *(length + count for length, count in zip(before, counts, strict=True)))
        rows, columns = real.nonzero(as_tuple=True)
        return Placement(positions.clamp_max(extent - 1), extent, None, (rows, positions[rows, columns]), real)

    def append(self, layer: int, placement: Placement, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values [batch, key-value heads, tokens, head size]; returns all that are to be
        seen, [batch, key-value heads, extent, head size]."""
        for cached, new in ((self.keys[layer], keys), (self.values[layer], values)):
            if placement.start is not None:
                cached[:, :, placement.start : placement.extent] = new
                continue
            by_token = new.transpose(1, 2)
            kept = by_token if placement.real is None else by_token[placement.real]
            cached.transpose(1, 2)[placement.targets] = kept.to(cached.dtype)
        return self.keys[layer][:, :, : placement.extent], self.values[layer][:, :, : placement.extent]

    def advance(self, tokens: int, attention_mask: Tensor | None = None) -> None:
        """Count the tokens of a finished pass as part of their sequences."""
        self.lengths += tokens if attention_mask is None else attention_mask.bool().sum(1).to(self.lengths.device)

    def _refuse_overflow(self, lengths: list[int]) -> None:
        if max(lengths) > self.capacity:
            row = lengths.index(max(lengths))
            raise CacheFullError(f"sequence {row} would have {lengths[row]} tokens, the cache holds {self.capacity}")
