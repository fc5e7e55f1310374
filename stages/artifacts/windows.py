"""The samples of a split of a token dataset: fixed windows, each with the token that follows it.

Sample k of a split is its tokens [k * L, (k + 1) * L) and the next one, where L is `sequence_length`. All samples
together predict every token of the split once, except the first token and those of an incomplete window at the end.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.artifacts.sample_order import shuffled

Batch = tuple[Tensor, Tensor, Tensor]  # inputs, targets, document numbers: each [samples, sequence_length], int64


class Windows:
    """The samples of one split.

    tokens: anything that slices to an array of token ids, for example a memory map.
    length: tokens of the split.
    starts: the first token of each document, ascending.
    """

    def __init__(self, tokens: Any, length: int, sequence_length: int, starts: np.ndarray) -> None:
        self.tokens = tokens
        self.sequence_length = sequence_length
        self.starts = starts
        self.count = max(length - 1, 0) // sequence_length
        self.seconds = 0.0  # spent in `batch` so far

    def batch(self, samples: Sequence[int]) -> Batch:
        """Inputs, targets and document numbers of the samples with these indices (0 <= index < `count`), each
        [samples, sequence_length] int64.

        The document number of a token counts the documents that begin before it within its sample, so it differs
        between packed documents.
        """
        began = time.perf_counter()
        length = self.sequence_length
        rows = [np.asarray(self.tokens[sample * length : (sample + 1) * length + 1], np.int64) for sample in samples]
        tokens = torch.from_numpy(np.stack(rows))
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        positions = np.asarray(samples, np.int64)[:, None] * length + np.arange(length)
        documents = self.starts.searchsorted(positions, side="right")
        batch = inputs.contiguous(), targets.contiguous(), torch.from_numpy(documents - documents[:, :1])
        self.seconds += time.perf_counter() - began
        return batch

    def shuffled_batch(self, numbers: Sequence[int], seed: int) -> Batch:
        """The batch of global sample numbers (>= 0). Each epoch of `count` numbers has its own order."""
        return self.batch([shuffled(number, self.count, seed) for number in numbers])
