"""What a training run trains: a model, and the loss of a few samples. This is the interface between loop and stages.

A stage passes a function `build(recipe) -> Task` in its `TrainingSpec`; the loop calls it on every rank. Pretraining,
mixture-of-experts training, tuning and distillation differ in this function only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stages.training.recipe import Execution, Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Loss:
    """The loss of one micro-batch, as sums over targets: the loop divides by the targets of the whole batch.

    An auxiliary loss that is a mean (load balancing, say) is multiplied by `targets` and added to `total`.
    """

    total: Tensor  # scalar, with gradient: what training minimises
    targets: float  # predicted tokens
    reported: Tensor | None = None  # scalar: what the metric "loss" and the curves show, if not `total`
    metrics: Tensor | None = None  # [len(task.metric_names)]: sums over targets
    by_target: Tensor | None = None  # [targets] float32, in validation: the loss of each target
    groups: Tensor | None = None  # [2, len(task.group_names)], in validation: summed losses and targets of each group


# (parameter name, start, stop) -> float32, 1-D: its initial values in that range of its elements, in memory order.
InitialValues = Callable[[str, int, int], "Tensor"]
LossFunction = Callable[["nn.Module", Sequence[int]], Loss]


@dataclass(frozen=True)
class Task:
    """A model and what to train it on. Must be bitwise the same on every rank.

    `loss(model, samples)` is called with global sample numbers 0, 1, 2, ... (`micro_batch_size` at a time). It maps
    them to data (`stages.artifacts.sample_order.shuffled`), and must depend on nothing else: no dropout, no state. It
    must run the model exactly once.
    """

    model: nn.Module  # on the meta device: without values, which each rank generates or reads for what it owns
    initial: InitialValues
    blocks: Sequence[nn.Module]  # in the order of the forward pass; the unit of sharding
    loss: LossFunction
    validation_loss: LossFunction  # called with sample numbers from 0 to `validation_samples` - 1
    validation_samples: int  # that exist; the recipe says how many of them are used
    metric_names: tuple[str, ...] = ()  # of `Loss.metrics`; recorded per target as "NAME" and "validation_NAME"
    group_names: tuple[str, ...] = ()  # of `Loss.groups`; recorded as "validation_loss/NAME"
    flops_per_target: float = 0.0  # operations of the forward and backward pass; 0: unknown
    data_seconds: Callable[[], float] = lambda: 0.0  # spent on reading data so far
    # Modules whose parameters are used before the blocks, and after them. Others may be used on both sides.
    stem: Sequence[nn.Module] = ()
    head: Sequence[nn.Module] = ()


@dataclass(frozen=True)
class StartState:
    """The kept state of a finished training, from which another one starts."""

    path: str  # of its folder
    continues: bool  # whether the steps and the place in the data go on too; otherwise only weights and moments do


@dataclass(frozen=True)
class TrainingSpec:
    """Everything that the ranks of a gang receive. It travels between processes.

    `build` is a module-level function or a `functools.partial` of one, whose arguments are small values: gangs pickle
    functions by reference. Data is passed as paths.
    """

    build: Callable[[Recipe], Task]
    identity: str  # changes whenever the data or the model does: checkpoints of another identity are not resumed from
    recipe: Recipe
    execution: Execution
    scratch: str  # path of the durable folder for checkpoints
    start: StartState | None = None  # None: the task's initial values
    kept_step: int | None = None  # the checkpoint of this step is kept until the end


@dataclass(frozen=True)
class TrainingResult:
    """What a rank returns when training has ended: the same on every rank, except for bytes sent and held."""

    checkpoint: str  # path of the last checkpoint; `stages.training.checkpoints.weights` reads it
    steps: int
    tokens: int  # targets trained on
    skipped: int  # batches without a finite gradient, and spikes
    ended: str  # why training ended before the recipe's last step; empty if it did not
    loss: float  # of the last step, in nats per target
    validation_loss: float
    initial_validation_loss: float
    curve: tuple[tuple[int, float], ...]  # (step, training loss), thinned to a few hundred points
    validation_curve: tuple[tuple[int, float], ...]  # (step, validation loss); step 0 is before training
    validation_metrics: Mapping[str, float] = field(default_factory=dict)
    validation_groups: Mapping[str, float] = field(default_factory=dict)  # loss by "source/NAME", "language/NAME"
    sent_bytes: Mapping[str, int] = field(default_factory=dict)  # by this rank since it started, by purpose
    # Bytes of this rank by part (`memory_usage`); "bare": the process without training state.
    memory: Mapping[str, int] = field(default_factory=dict)
    ranks: int = 1  # at the end
