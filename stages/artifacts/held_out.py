"""Held-out text for stages that compare a model before and after: fixed samples of the validation split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from stages.artifacts.tokens import TokenDataset
from stages.artifacts.windows import Batch, Windows
from stages.base import StageError
from stages.model.decoder import Decoder
from stages.model.footprint import BATCH_SAMPLES
from stages.model.head_loss import token_losses


def held_out_batches(dataset: TokenDataset, sequence_length: int, samples: int) -> Iterator[Batch]:
    """At most `samples` samples spread evenly over the validation split, in batches.

    Raises StageError if the split has no whole sample.
    """
    split = dataset.split("validation")
    windows = Windows(split.tokens, split.length, sequence_length, dataset.end_of_text)
    used = min(samples, windows.count)
    if not used:
        raise StageError(
            f"the validation split of {dataset.path} has {split.length} tokens, fewer than one sample of "
            f"{sequence_length}: enlarge the split or lower sequence_length"
        )
    chosen = [index * windows.count // used for index in range(used)]
    for start in range(0, used, BATCH_SAMPLES):
        yield windows.batch(chosen[start : start + BATCH_SAMPLES])


def perplexity(loss: float) -> float:
    """Of a loss in nats per token; infinite where it is beyond a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


@torch.inference_mode()
def held_out_loss(
    model: Decoder, dataset: TokenDataset, sequence_length: int, samples: int, done: Callable[[int], None]
) -> float:
    """Mean cross-entropy in nats per token, with packed documents kept apart. `done` is called with the samples of each
    batch."""
    total = targets = 0.0
    for inputs, wanted, documents in held_out_batches(dataset, sequence_length, samples):
        hidden = model.hidden_states(inputs, documents=documents)
        total += float(token_losses(model, hidden, wanted).sum())
        targets += wanted.numel()
        done(len(inputs))
    return total / targets
