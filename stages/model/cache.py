"""The key-value cache of decoding, for a batch of sequences that each have their own length.

Every sequence has a row. `rows` returns a view of some rows that shares their memory, so that one sequence can be
filled while others wait. With `move` and `clear` an engine keeps the running sequences together at the front.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.model.config import DecoderConfig
from stages.model.independent_rows import KEYS


class CacheFullError(ValueError):
    """A sequence would grow beyond the cache's capacity."""


@dataclass(frozen=True)
class Placement:
    """The places in the cache of the tokens of one forward pass."""

    positions: Tensor  # [batch or 1, tokens]: each token's position in its sequence
    extent: int  # positions that the pass reads: the new length of the longest sequence, in whole blocks of attention
    lengths: list[int]  # of each sequence, with the new tokens; at least 1
    start: int | None  # the first position to fill if it is the same in every row
    targets: tuple[Tensor, Tensor] | None  # otherwise the (row, position) of each token that is not padding, in order
    real: Tensor | None  # [batch, tokens] bool: which tokens are not padding; None: all


class KeyValueCache:
    """Keys and values of `sequences` sequences of up to `capacity` tokens, a pair of tensors for each layer.

    `keys[layer]` and `values[layer]` have shape [sequences, key-value heads, capacity, head size]. `lengths`
    [sequences] int64 is the number of filled positions of each sequence; later positions are never attended to.
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
            raise ValueError(f"capacity is {capacity}, expected 1 to the context_length {config.context_length}")
        shape = (sequences, config.grouped_heads, capacity, config.head_size)
        # Zeros instead of uninitialised memory: masked positions have weight 0, but 0 times NaN is NaN.
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
        """A cache of the sequences [start, stop) that shares the memory and lengths of this one."""
        view = object.__new__(KeyValueCache)
        view.keys = [tensor[start:stop] for tensor in self.keys]
        view.values = [tensor[start:stop] for tensor in self.values]
        view.lengths = self.lengths[start:stop]
        return view

    def clear(self, row: int) -> None:
        """Make a row empty."""
        self.lengths[row] = 0

    def truncate(self, row: int, length: int) -> None:
        """Keep only the first `length` tokens of a sequence. Raises ValueError if it has fewer."""
        if not 0 <= length <= int(self.lengths[row]):
            raise ValueError(f"sequence {row} has {int(self.lengths[row])} tokens, cannot keep {length}")
        self.lengths[row] = length

    def copy(self, source: int, target: int, length: int) -> None:
        """Replace the sequence of row `target` with the first `length` tokens of that of row `source`."""
        for tensor in (*self.keys, *self.values):
            tensor[target, :, :length] = tensor[source, :, :length]
        self.lengths[target] = length

    def move(self, source: int, target: int) -> None:
        """Move a sequence to another row, replacing the sequence there. The source row is empty afterwards."""
        if source != target:
            self.copy(source, target, int(self.lengths[source]))
            self.lengths[source] = 0

    def place(self, tokens: int, attention_mask: Tensor | None = None) -> Placement:
        """The places for `tokens` new tokens in each row. Padding (0 in `attention_mask` [batch, tokens]) gets none.

        Raises CacheFullError if they do not fit into a row.
        """
        before = self.lengths.tolist()
        real = None if attention_mask is None else attention_mask.bool()
        counts = [tokens] * len(before) if real is None else real.sum(1).tolist()
        after = [length + count for length, count in zip(before, counts, strict=True)]
        if max(after) > self.capacity:
            row = after.index(max(after))
            raise CacheFullError(f"sequence {row} would have {after[row]} tokens; the cache holds {self.capacity}")
        after = [max(1, length) for length in after]
        extent = min(-(-max(after) // KEYS) * KEYS, self.capacity)
        device = self.keys[0].device
        if real is None:
            steps = torch.arange(tokens, device=device)
            if len(set(before)) == 1:
                return Placement((before[0] + steps)[None], extent, after, before[0], None, None)
            positions = self.lengths.to(device)[:, None] + steps
            rows = torch.arange(len(before), device=device)[:, None].expand_as(positions)
            return Placement(positions, extent, after, None, (rows, positions), None)
        # A padding token has the position of its neighbour, so that its (unused) row of attention is finite.
        positions = self.lengths.to(real.device)[:, None] + (real.cumsum(1) - 1).clamp_min(0)
        rows, columns = real.nonzero(as_tuple=True)
        places = (rows, positions[rows, columns])
        return Placement(positions.clamp_max(max(after) - 1), extent, after, None, places, real)

    def append(self, layer: int, placement: Placement, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new keys and values of a layer, [batch, key-value heads, tokens, head size].

        Returns all keys and values to attend to, each [batch, key-value heads, extent, head size].
        """
        for cached, new in ((self.keys[layer], keys), (self.values[layer], values)):
            if placement.start is not None:
                cached[:, :, placement.start : placement.start + new.shape[2]] = new
                continue
            by_token = new.transpose(1, 2)
            kept = by_token if placement.real is None else by_token[placement.real]
            cached.transpose(1, 2)[placement.targets] = kept.to(cached.dtype)
        return self.keys[layer][:, :, : placement.extent], self.values[layer][:, :, : placement.extent]

    def advance(self, tokens: int, attention_mask: Tensor | None = None) -> None:
        """Add the tokens of a finished pass to the lengths of their sequences."""
        self.lengths += tokens if attention_mask is None else attention_mask.bool().sum(1).to(self.lengths.device)
