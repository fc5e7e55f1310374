"""A decoder with its running sequences, each in a row of one key-value cache.

The rows in use are kept contiguous at the front, so that a step is one forward pass over exactly those rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stages.model.cache import KeyValueCache
from stages.model.decoder import Decoder


class DecoderBatch:
    """Implements `stages.inference.engine.Batch`. The cache's memory is allocated at once.

    capacity: tokens of each slot, prompt included (None: the model's context length).
    """

    def __init__(self, model: Decoder, slots: int, capacity: int | None = None) -> None:
        self.slots = slots
        self._model = model.eval()
        parameter = next(model.parameters())
        floating = parameter.dtype if parameter.is_floating_point() else torch.float32
        self._device = parameter.device
        self._cache = KeyValueCache(model.config, slots, capacity, dtype=floating, device=self._device)
        self._rows: list[int] = []  # the slot that each row in use belongs to

    @torch.inference_mode()
    def read(self, slot: int, tokens: Sequence[int], *, every: bool) -> Tensor:
        if slot not in self._rows:
            self._rows.append(slot)
        row = self._rows.index(slot)
        batch, mask = torch.tensor([list(tokens)], device=self._device), None
        if len(tokens) == 1:  # a pass of one token computes as a step does, with other last bits than a longer prompt
            batch, mask = batch.expand(1, 2), torch.tensor([[True, False]], device=self._device)
        hidden = self._model.hidden_states(batch, attention_mask=mask, cache=self._cache.rows(row, row + 1))
        hidden = hidden[0, : len(tokens)]
        # The head is the largest matrix of a small model, and usually only the last token's logits are needed.
        return self._model.logits(hidden if every else hidden[-1:]).cpu()

    @torch.inference_mode()
    def fork(self, source: int, target: int, length: int) -> None:
        if target not in self._rows:
            self._rows.append(target)
        self._cache.copy(self._rows.index(source), self._rows.index(target), length)

    @torch.inference_mode()
    def step(self, tokens: dict[int, int]) -> Tensor:
        rows = [self._rows.index(slot) for slot in tokens]
        count = len(self._rows)
        batch = torch.zeros(count, 1, dtype=torch.long)
        batch[rows, 0] = torch.tensor(list(tokens.values()))
        mask = None
        if len(rows) < count:  # the prompts of the others are still being read: they are padding in this step
            mask = torch.zeros(count, 1, dtype=torch.bool, device=self._device)
            mask[rows] = True
        cache = self._cache.rows(0, count)
        hidden = self._model.hidden_states(batch.to(self._device), attention_mask=mask, cache=cache)
        return self._model.logits(hidden if rows == list(range(count)) else hidden[rows])[:, 0].cpu()

    @torch.inference_mode()
    def release(self, slot: int) -> None:
        if slot not in self._rows:
            return
        row, last = self._rows.index(slot), len(self._rows) - 1
        emptied = max(int(self._cache.lengths[row]), int(self._cache.lengths[last]))
        self._cache.move(last, row)
        self._rows[row] = self._rows[last]
        self._rows.pop()
        # The values are cleared as well: masked positions have a weight of 0, but 0 times NaN is NaN.
        for tensor in (*self._cache.keys, *self._cache.values):
            tensor[last, :, :emptied] = 0
        self._cache.clear(last)

    def warm_up(self) -> None:
        """Run the first forward passes, which are slow, before the first request arrives."""
        for slot in range(self.slots):
            self.read(slot, [0], every=False)
        self.step(dict.fromkeys(range(self.slots), 0))
        for slot in range(self.slots):
            self.release(slot)
