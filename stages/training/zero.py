"""ZeRO (Rajbhandari et al., arXiv 1910.02054): the training state of one model, sharded over ranks at stages 0 to 3.

    stage | parameters | gradients | master weights, moments | a rank sends per step, for its G micro-batches
    0     | whole      | whole     | whole                   | gradients 2 P         (P: bytes, times (N-1)/N)
    1     | whole      | whole     | shard                   | gradients P, parameters P
    2     | whole      | shard     | shard                   | gradients G P, parameters P
    3     | shard      | shard     | shard                   | gradients G P, parameters 2 G P (outside blocks: G P)

The result is bitwise the same for every stage and number of ranks: the gradient of every micro-batch is computed
separately and added in a fixed tree (`summation_tree.py`, `gradient_reduction.py`), and everything after that is
elementwise on aligned shards.

Parameters are views of flat buffers (`layout.py`), one per block and up to three for what is outside the blocks. At
stage 3 a group is gathered while the pass works on the position before it, and is freed when the pass has left it
(`gathering.py`). No rank ever holds more of the model than its stage says, not even at the start: the model comes
without values, and each rank generates or reads the ranges that it owns.

Parameters that do not require a gradient are frozen: they form separate groups, which have neither gradients nor
moments nor separate master weights, and keep their initial values. Checkpoints hold those values too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from stages.base import StageError
from stages.parallel.collectives import Collectives
from stages.training.buffers import GroupBuffers, create_buffers, groups_of
from stages.training.gathering import ParameterGatherer
from stages.training.gradient_norm import exact_sum_of_squares, plain_sum_of_squares
from stages.training.gradient_reduction import create_reducer
from stages.training.initial_weights import replace_parameters
from stages.training.layout import ALIGNMENT, Slot
from stages.training.offload import StorageFactory
from stages.training.optimizer import adamw
from stages.training.passes import PassHooks
from stages.training.recipe import Execution, Recipe
from stages.training.recompute import recompute
from stages.training.task import InitialValues, Task


class ShardedModel:
    """A model in training. Use it on every rank alike, after `initialise` or `restore`:

        for micro_batch in sharded.turns():
            with sharded.micro_batch(micro_batch):
                loss(model, micro_batch).backward()
        norm = sharded.reduce()
        sharded.update(learning_rate, scale, step)

    The task's model is on the meta device; its parameters are replaced by views of this object's buffers, in the
    recipe's precision. `scratch` is the folder for state that is offloaded to files, unless the execution names one.
    Raises StageError if the task's model has no parameter to train.
    """

    def __init__(
        self, task: Task, recipe: Recipe, execution: Execution, collectives: Collectives, scratch: Path | None = None
    ) -> None:
        self.recipe, self.collectives = recipe, collectives
        self.zero_stage = execution.zero_stage
        self.most_gradient_bytes = 0  # held at once between micro-batches and at the end of a step, so far
        folder = Path(execution.offload_folder or scratch or tempfile.gettempdir())
        storages = StorageFactory(collectives.device, folder)
        layouts = groups_of(task.model, task.blocks, task.stem, task.head)
        if all(layout.frozen for layout in layouts):
            raise StageError(
                "no parameter of the model requires a gradient, so there is nothing to train: leave at least one "
                "parameter trainable"
            )
        self._initial = task.initial
        self.groups = [
            create_buffers(layout, recipe.precision, execution, collectives.rank, collectives.ranks, storages)
            for layout in layouts
        ]
        replace_parameters(
            task.model, {slot.name: parameter for one in self.groups for slot, parameter in one.parameters}
        )
        self._trained = [buffers for buffers in self.groups if not buffers.layout.frozen]
        for buffers in self._trained:
            for slot, parameter in buffers.parameters:
                _collect_gradient(parameter, buffers, slot)
        gatherer = None
        if self.zero_stage == 3:
            tables = [module.weight for module in task.model.modules() if isinstance(module, nn.Embedding)]
            gatherer = ParameterGatherer(self.groups, len(task.blocks) + 2, tables, collectives)
        self._reducer = create_reducer(self._trained, recipe, execution, collectives)
        self._passes = PassHooks(task.blocks, [one.layout for one in self._trained], gatherer, self._reducer.close)
        recompute(task.blocks, execution, folder)

    def initialise(self, values: InitialValues) -> None:
        """Set the master weights to a task's initial values. Every rank must call it."""
        for buffers in self.groups:
            with buffers.states(changed=True) as states:
                for slot, start, stop in buffers.owned_parts():
                    buffers.part(states["master"], slot, start, stop).copy_(values(slot.name, start, stop))
            self._start_weight_gather(buffers)()

    # -- passes and gradients

    @property
    def micro_batches(self) -> int:
        """Micro-batches of the current step, over all ranks. Set it before the first micro-batch of a step."""
        return self._reducer.micro_batches

    @micro_batches.setter
    def micro_batches(self, count: int) -> None:
        self._reducer.micro_batches = count

    def turns(self) -> Sequence[int]:
        """The micro-batches that this rank computes in a step, in order.

        A number that is not below `micro_batches` is a spare turn: compute any micro-batch; its gradient is dropped.
        """
        return self._reducer.turns()

    @contextmanager
    def micro_batch(self, number: int) -> Iterator[None]:
        """Run one forward and one backward pass inside; the gradient is that of micro-batch `number`."""
        self._reducer.begin(number)
        with self.forward_pass():
            yield
            self._reducer.end()
        self._record_gradient_bytes()

    @contextmanager
    def forward_pass(self) -> Iterator[None]:
        """Run one forward pass inside; for evaluation, under `torch.no_grad`."""
        with self._passes.forward_pass():
            yield

    def reduce(self) -> float:
        """Add the gradients of all micro-batches, and return the global norm of the sum, which is not finite if any
        element is not. Every rank then holds the gradient of what it owns. Every rank must call it."""
        ranks, rank = self.collectives.ranks, self.collectives.rank
        self._reducer.finish()
        gradients = [buffers.gradient for buffers in self.groups if buffers.gradient is not None]
        shards = [gradient.view(ranks, -1)[rank] for gradient in gradients] if self.zero_stage == 0 else gradients
        self._record_gradient_bytes()
        if self.recipe.free_order_ranks is not None:
            return float(plain_sum_of_squares(shards, self.collectives) ** 0.5)
        # The number of rows without padding does not depend on the number of ranks.
        rows = sum(buffers.layout.size for buffers in self._trained) // ALIGNMENT
        return float(exact_sum_of_squares(shards, rows, self.collectives) ** 0.5)

    def _record_gradient_bytes(self) -> None:
        held = sum(tensor.nbytes for buffers in self.groups for tensor in buffers.gradients())
        self.most_gradient_bytes = max(self.most_gradient_bytes, held)

    # -- the update

    def update(self, learning_rate: float, scale: float, step: int) -> None:
        """One step of AdamW with the gradient times `scale`. `step` counts from 1. Every rank must call it."""
        waits = []
        for buffers, following in zip(self._trained, [*self._trained[1:], None], strict=True):
            if following:
                following.prefetch()
            with buffers.states(changed=True) as states:
                adamw(buffers, states, self.recipe, learning_rate, scale, step)
            buffers.gradient = None
            waits.append(self._start_weight_gather(buffers))
        for wait in waits:
            wait()

    def discard_gradient(self) -> None:
        for buffers in self.groups:
            buffers.gradient = None

    def _start_weight_gather(self, buffers: GroupBuffers) -> Callable[[], None]:
        """Stages 1 and 2: start to gather the weights that each rank has updated. What is returned waits for them."""
        return self.collectives.start_all_gather(buffers.full) if self.zero_stage in (1, 2) else lambda: None

    # -- checkpoints

    def collect(self, index: int) -> dict[str, Tensor] | None:
        """Master weights and moments of group `index` on rank 0, None on the others: "STATE/PARAMETER" -> float32
        tensor in the parameter's shape, in host memory. Every rank must call it.

        The result does not depend on the number of ranks or the stage. The tensors are copies: training may continue.
        """
        buffers = self.groups[index]
        if buffers.layout.frozen:
            return self._frozen_weights(buffers) if self.collectives.rank == 0 else None
        tensors = {}
        with buffers.states() as states:
            for state, value in states.items():
                value = value.to(self.collectives.device)
                sharded = self.zero_stage and self.collectives.ranks > 1
                full = self.collectives.gather_to_first(value) if sharded else value
                if full is not None and self.collectives.rank == 0:
                    full = full.to("cpu", copy=not sharded)
                    for slot in buffers.layout.slots:
                        tensors[f"{state}/{slot.name}"] = full[slot.offset : slot.end].view(slot.shape)
        return tensors if self.collectives.rank == 0 else None

    def _frozen_weights(self, buffers: GroupBuffers) -> dict[str, Tensor]:
        """The same for a frozen group: its initial values, which are more precise than those that a pass uses."""
        return {
            f"master/{slot.name}": self._initial(slot.name, 0, slot.numel).clone().view(slot.shape)
            for slot in buffers.layout.slots
        }

    def restore(self, index: int, read: InitialValues) -> None:
        """Restore group `index` from what `collect` returned; `read` reads a range of one of its tensors. Every rank
        must call it."""
        buffers = self.groups[index]
        with buffers.states(changed=True) as states:
            for state, target in states.items():
                for slot, start, stop in buffers.owned_parts():
                    buffers.part(target, slot, start, stop).copy_(read(f"{state}/{slot.name}", start, stop))
        self._start_weight_gather(buffers)()


def _collect_gradient(parameter: nn.Parameter, buffers: GroupBuffers, slot: Slot) -> None:
    """Move each gradient of the parameter into its group's buffer as soon as autograd has accumulated it."""

    def collect(parameter: nn.Parameter) -> None:
        assert parameter.grad is not None
        buffers.put_gradient(slot, parameter.grad)
        parameter.grad = None

    parameter.register_post_accumulate_grad_hook(collect)
