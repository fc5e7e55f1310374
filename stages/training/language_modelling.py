"""Language modelling on a token dataset: the loss of predicting each next token, also by source and by language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.artifacts.tokens import TokenDataset, TokenSplit
from stages.artifacts.windows import Batch, Windows
from stages.base import StageError
from stages.model.decoder import Decoder
from stages.model.feed_forward import Routing
from stages.model.head_loss import cross_entropy, token_losses
from stages.training.batch_losses import sums_by_group
from stages.training.flops import flops_per_target
from stages.training.recipe import Recipe
from stages.training.task import InitialValues, Loss, Task

GROUPED_BY = ("source", "language")  # kinds of groups that validation losses are reported for
GROUPS_LIMIT = 50  # groups of each kind, the largest ones; the others form one group

BatchLoss = Callable[[Any, Batch, bool], Loss]


class TargetGroups:
    """Maps the targets of a split to the source and language of their document.

    `names`: of the groups, "source/NAME" and "language/NAME".
    """

    def __init__(self, split: TokenSplit, sequence_length: int) -> None:
        self.starts, self.sequence_length = split.starts, sequence_length
        ends = np.append(split.starts[1:], split.length)
        names: list[str] = []
        numbers = []
        for kind in GROUPED_BY:
            of_document = split.index[kind].to_pylist()
            tokens: Counter[str] = Counter()
            for name, size in zip(of_document, (ends - split.starts).tolist(), strict=True):
                tokens[name or "unknown"] += size
            largest = sorted(tokens, key=lambda name: (-tokens[name], name))[:GROUPS_LIMIT]
            place = {name: len(names) + number for number, name in enumerate(largest)}
            others = len(names) + len(largest)
            names += [f"{kind}/{name}" for name in largest] + [f"{kind}/others"] * (len(tokens) > len(largest))
            numbers.append([place.get(name or "unknown", others) for name in of_document])
        self.names = tuple(names)
        self.of_document = np.asarray(numbers, np.int64)  # [kinds, documents]

    def of_targets(self, samples: Sequence[int]) -> Tensor:
        """The group number of each target of `samples`, in the order of a batch: [kinds, targets] int64."""
        first = np.asarray(samples, np.int64)[:, None] * self.sequence_length + 1
        positions = (first + np.arange(self.sequence_length)).reshape(-1)
        return torch.from_numpy(self.of_document[:, self.starts.searchsorted(positions, side="right") - 1])


def language_modelling(
    model: Decoder,
    initial: InitialValues,
    dataset: TokenDataset,
    recipe: Recipe,
    *,
    separate_documents: bool,
    loss: BatchLoss | None = None,
) -> Task:
    """The task of predicting every next token of the dataset's train split, validated on its validation split.

    `loss(model, batch, separate_documents)` replaces `next_token_loss` for a model with additional losses.
    Raises StageError if the train split has no complete sample, or if its vocabulary is larger than the model's.
    """
    if dataset.vocab_size > model.config.vocab_size:
        raise StageError(
            f"the tokens have a vocabulary of {dataset.vocab_size}, but the model's vocab_size is "
            f"{model.config.vocab_size}: set vocab_size to at least the tokens' vocabulary"
        )
    splits = dataset.split("train"), dataset.split("validation")
    train, validation = (Windows(split.tokens, split.length, recipe.sequence_length, split.starts) for split in splits)
    groups = TargetGroups(splits[1], recipe.sequence_length)
    if not train.count:
        raise StageError(
            f"the train split of {dataset.path} is shorter than one sample of sequence_length "
            f"{recipe.sequence_length}: use more text or a smaller sequence_length"
        )
    batch_loss: BatchLoss = loss or next_token_loss

    def train_loss(model: nn.Module, numbers: Sequence[int]) -> Loss:
        return batch_loss(model, train.shuffled_batch(numbers, recipe.seed), separate_documents)

    def validation_loss(model: nn.Module, samples: Sequence[int]) -> Loss:
        found = batch_loss(model, validation.batch(samples), separate_documents)
        if found.by_target is None:
            return found
        sums = sums_by_group(found.by_target.cpu(), groups.of_targets(samples), len(groups.names))
        return replace(found, groups=sums)

    return Task(
        model,
        initial,
        list(model.blocks),
        train_loss,
        validation_loss,
        validation.count,
        group_names=groups.names,
        flops_per_target=flops_per_target(model.config, recipe.sequence_length),
        data_seconds=lambda: train.seconds,
        stem=[model.word_embeddings, model.position_embeddings, model.word_embeddings_layernorm],
        head=[model.ln_f, model.word_embeddings if model.lm_head is None else model.lm_head],
    )


def next_token_loss(
    model: Decoder, batch: Batch, separate_documents: bool, routings: list[Routing] | None = None
) -> Loss:
    """The summed cross-entropy (nats, float32) of a batch's targets; if gradients are disabled, also of each target.

    `batch`: inputs, targets and document numbers, [samples, length] int64 each. With `separate_documents`, attention
    does not cross the boundaries of packed documents. `routings`: as in `Decoder.hidden_states`.
    """
    inputs, targets, documents = (part.to(model.word_embeddings.weight.device) for part in batch)
    hidden = model.hidden_states(inputs, documents=documents if separate_documents else None, routings=routings)
    if torch.is_grad_enabled():
        return Loss(cross_entropy(model, hidden, targets), targets.numel())
    by_target = token_losses(model, hidden, targets)
    return Loss(by_target.sum(), targets.numel(), by_target=by_target)
