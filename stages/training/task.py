"""What a training run trains: the model, and the loss of a few samples of it. The seam between the loop and stages.

A stage names a module-level function "module:function" in its `TrainingSpec`; the loop calls it on every rank with
the spec's arguments and gets a `Task`. Pretraining, mixture-of-experts training, tuning and distillation differ in
this function only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stages.training.recipe import Execution, Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Loss:
    """The loss of one micro-batch, as sums over targets: the loop divides by the targets of the whole batch.

    An auxiliary loss that is a mean (load balance, say) is added to `total` multiplied by `targets`.
    """

    total: Tensor  # scalar, with gradient; its gradient is what is followed
    targets: float  # predicted tokens
    reported: Tensor | None = None  # scalar: what "loss" metrics and curves show, if not `total`
    metrics: Tensor | None = None  # [len(task.metric_names)]: sums over targets as well
    by_target: Tensor | None = None  # [targets] float32, in validation: the loss of each target
    groups: Tensor | None = None  # [2, len(task.group_names)], in validation: summed losses and targets of each group


# (parameter name, start, stop) -> float32, 1-D: its initial values in that range of its elements, in memory order.
InitialValues = Callable[[str, int, int], "Tensor"]
LossFunction = Callable[["nn.Module", Sequence[int]], Loss]


@dataclass(frozen=True)
class Task:
    """A model and what to train it on. Must be the same on every rank, to the bit.

    `loss(model, samples)` is called with global sample numbers 0, 1, 2, ... (micro-batches of `micro_batch_size`); it
    maps them to data itself (`stages.artifacts.sample_order.shuffled`), and must depend on nothing else: no dropout, no
    state.
    It goes through the model once: what it needs of it comes from one pass.
    """

    model: nn.Module  # on the meta device: without values, which each rank makes or reads for what it owns
    initial: InitialValues
    blocks: Sequence[nn.Module]  # in the order of the forward pass; the unit of sharding
    loss: LossFunction
    validation_loss: LossFunction  # with sample numbers 0 to `validation_samples` - 1
    validation_samples: int  # what there is; the recipe says how many of these are used
    metric_names: tuple[str, ...] = ()  # of `Loss.metrics`; recorded per target as "NAME" and "validation_NAME"
    group_names: tuple[str, ...] = ()  # of `Loss.groups`; recorded as "validation_loss/NAME"
    flops_per_target: float = 0.0  # operations of forward and backward pass; 0: not known
    data_seconds: Callable[[], float] = lambda: 0.0  # spent on reading data so far
    # Modules whose parameters are used before the blocks, and after them; in neither: perhaps on both sides.
    stem: Sequence[nn.Module] = ()
    head: Sequence[nn.Module] = ()


@dataclass(frozen=True)
class TrainingSpec:
    """All that the ranks of a gang are told. Plain values: it travels between processes."""

    task: str  # "module:function", called as function(recipe, **arguments) -> Task
    arguments: Mapping[str, Any]  # JSON values: paths as strings, configs as mappings
    identity: str  # changes whenever the data or the model does: checkpoints of another identity are not gone on from
    recipe: Recipe
    execution: Execution
    scratch: str

    def build(self) -> Task:
        module, _, function = self.task.partition(":")
        task: Task = getattr(importlib.import_module(module), function)(self.recipe, **self.arguments)
        return task


@dataclass(frozen=True)
class TrainingResult:
    """What a rank returns when training is done. The same on every rank, but for bytes sent and held."""

    checkpoint: str  # path of the last checkpoint: `stages.training.checkpoints.weights` reads it
    steps: int
    tokens: int  # targets trained on
    skipped: int  # batches without a finite gradient, and spikes
    ended: str  # why training ended before the recipe's last step; empty if it did not
    loss: float  # of the last step, in nats per target
    validation_loss: float
    initial_validation_loss: float
    curve: tuple[tuple[int, float], ...]  # (step, training loss); thinned to a few hundred points
    validation_curve: tuple[tuple[int, float], ...]  # (step, validation loss); step 0 is before training
    validation_metrics: Mapping[str, float] = field(default_factory=dict)
    validation_groups: Mapping[str, float] = field(default_factory=dict)  # loss by "source/NAME", "language/NAME"
    sent_bytes: Mapping[str, int] = field(default_factory=dict)  # by this rank since its start, by purpose
    memory: Mapping[str, int] = field(
        default_factory=dict
    )  # bytes of this rank by part (`meters`); "bare": its process
    ranks: int = 1  # that did the work at the end
