"""The loss over the recipe's fixed validation samples, computed as if they were one batch."""

from __future__ import annotations

import torch

from stages.base import StageError
from stages.parallel.collectives import Collectives
from stages.training.batch_losses import BatchLosses, BatchMeans
from stages.training.recipe import Recipe
from stages.training.task import Task
from stages.training.zero import ShardedModel


def validate(task: Task, model: ShardedModel, recipe: Recipe, collectives: Collectives) -> BatchMeans:
    """The means over the validation samples, bitwise the same for every number of ranks: micro-batches depend on the
    samples alone. Every rank must call it. Raises StageError if there is no validation sample."""
    used = min(recipe.validation_samples, task.validation_samples)
    if not used:
        raise StageError(
            "training measures its validation loss, and the validation split of the tokens has no complete sample: "
            "raise validation_fraction of the corpus, or lower sequence_length"
        )
    size = min(recipe.micro_batch_size, used)
    chosen = [index * task.validation_samples // used for index in range(used)]
    batches = [chosen[start : start + size] for start in range(0, used, size)]
    losses = BatchLosses(len(batches), task, collectives)
    for turn in range(-(-len(batches) // collectives.ranks)):
        number = turn * collectives.ranks + collectives.rank
        # At stage 3 ranks gather parameters together, so a rank without a batch repeats the last one.
        batch = batches[min(number, len(batches) - 1)]
        with model.forward_pass(), torch.no_grad():
            losses.put(number, task.validation_loss(task.model, batch))
    losses.combine()
    return losses.means()
