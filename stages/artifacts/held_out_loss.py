"""The loss of a model on held-out text, for stages that compare a model before and after a change: fixed samples of
the validation split."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from stages.artifacts.tokens import TokenDataset
from stages.artifacts.windows import Batch, Windows
from stages.base import StageError
from stages.model.decoder import Decoder
from stages.model.footprint import BATCH_SAMPLES
from stages.model.head_loss import token_losses


def held_out_batches(dataset: TokenDataset, sequence_length: int, samples: int) -> Iterator[Batch]:
    """At most `samples` samples, spread evenly over the validation split, in batches of `BATCH_SAMPLES`.

    Raises StageError if the split has no complete sample.
    """
    split = dataset.split("validation")
    windows = Windows(split.tokens, split.length, sequence_length, dataset.end_of_text)
    used = min(samples, windows.count)
    if not used:
        raise StageError(
            f"the loss before and after is measured on the validation split, and that of {dataset.path} has "
            f"{split.length} tokens, fewer than one sample of {sequence_length} and its last target: raise "
            "validation_fraction of the corpus, or lower sequence_length"
        )
    chosen = [index * windows.count // used for index in range(used)]
    for start in range(0, used, BATCH_SAMPLES):
        yield windows.batch(chosen[start : start + BATCH_SAMPLES])


@torch.inference_mode()
def held_out_loss(
    model: Decoder, dataset: TokenDataset, sequence_length: int, samples: int, done: Callable[[int], None]
) -> float:
    """The mean cross-entropy in nats per token. Packed documents do not attend to each other.

    `done` is called after each batch with its number of samples. Raises StageError as `held_out_batches` does.
    """
    total = targets = 0.0
    for inputs, wanted, documents in held_out_batches(dataset, sequence_length, samples):
        hidden = model.hidden_states(inputs, documents=documents)
        total += float(token_losses(model, hidden, wanted).sum())
        targets += wanted.numel()
        done(len(inputs))
    return total / targets
