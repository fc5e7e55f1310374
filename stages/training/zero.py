"""ZeRO (Rajbhandari et al., arXiv 1910.02054): one model's training state shared out over ranks, stages 0 to 3.

    stage | parameters | gradients | master weights, moments | a step sends, per rank and micro-batch of G on a rank
    0     | whole      | whole     | whole                   | gradients 2 P        (P: bytes, times (N-1)/N)
    1     | whole      | whole     | shard                   | gradients P, parameters P
    2     | whole      | shard     | shard                   | gradients G P, parameters P
    3     | shard      | shard     | shard                   | gradients G P, parameters 2 G P (outside blocks: G P)

Every stage at every number of ranks gives the same bits: every micro-batch's gradient is computed alone and summed in
the fixed tree of `stages/training/tree.py`; everything after it is elementwise on aligned shards. Stages 0 and 1 give
each rank a contiguous run of micro-batches and exchange sums once a step, as the last backward pass goes on. Stages 2
and 3 deal micro-batches out in turn and exchange after each, so that only shards are kept; a rank left without one in
the last turn has a spare turn, whose gradient is dropped.

Parameters live in flat buffers (`stages/training/layout.py`), one a block and up to three for what lies outside the
blocks. At stage 3 a group is gathered while the forward or the backward pass works on what comes before it, and freed
when it has passed (`stages/training/gathering.py`). No rank ever holds the whole model beyond what its stage says, nor
at the start: the model comes without values, and each rank makes or reads those that it owns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from stages.parallel.collectives import Collectives, plain_sum_of_squares, sum_of_squares
from stages.training import gradients
from stages.training.buffers import STATES, Buffers, groups_of
from stages.training.gathering import Gathering, free
from stages.training.layout import ALIGNMENT, Group, Slot
from stages.training.materialise import InitialValues, materialise
from stages.training.offload import Home, Homes, InMemory
from stages.training.optimizer import adamw
from stages.training.recipe import Execution, Precision, Recipe
from stages.training.recompute import recompute
from stages.training.task import Task
from stages.training.tree import kept_spans, leaf_range

DTYPES: Mapping[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ShardedModel:
    """A model in training. Use, on every rank alike, after `initialise` or `restore`:

        for micro_batch in sharded.turns():
            with sharded.micro_batch(micro_batch):
                loss(model, micro_batch).backward()
        norm = sharded.reduce()
        sharded.update(learning_rate, scale, step)

    `leaves` is the number of micro-batches in a batch. The task's model is on the meta device; it gets parameters in
    `recipe.precision` that belong to this object. `scratch`: where what is offloaded to files goes, unless the
    execution names a folder.
    """

    def __init__(
        self, task: Task, recipe: Recipe, execution: Execution, collectives: Collectives, scratch: Path | None = None
    ) -> None:
        self.recipe, self.execution, self.collectives = recipe, execution, collectives
        self.zero_stage = execution.zero_stage
        self._in_order = recipe.free_order_ranks is None
        self.leaves = recipe.micro_batches
        self._turn = 0  # micro-batches that this rank has done of the batch
        self.most_gradient_bytes = 0  # that were kept at once, between micro-batches and at the end of a step
        self._passing = False  # whether the forward pass has come to the blocks
        self._open = 0  # groups, from the first, whose gradients of the micro-batch at work are not taken up
        self._coming: list[Callable[[], None]] = []  # stage 0: what waits for gradients that ranks give each other
        folder = Path(execution.offload_folder or scratch or tempfile.gettempdir())
        self._homes = Homes(collectives.device, folder)
        layouts = groups_of(task.model, task.blocks, task.stem, task.head)
        self.groups = [self._buffers(layout) for layout in layouts]
        materialise(task.model, {slot.name: parameter for one in self.groups for slot, parameter in one.parameters})
        for buffers in self.groups:
            for slot, parameter in buffers.parameters:
                parameter.register_post_accumulate_grad_hook(_collector(buffers, slot))
        largest = max(layout.padded(collectives.ranks) for layout in layouts)
        # What is on its way from stage 2 on keeps whole gradients that would be gone else.
        self._flight = gradients.Flight(largest, at_once=2 if self.zero_stage < 2 else 1)
        self._unsent = len(self.groups)  # stages 0 and 1: groups, from the first, whose sums are not on their way
        self._first_block = next(index for index, layout in enumerate(layouts) if 1 in layout.places)
        self._last_place = len(task.blocks) + 1
        self._gathering: Gathering | None = None
        if self.zero_stage == 3:
            tables = [module.weight for module in task.model.modules() if isinstance(module, nn.Embedding)]
            self._gathering = Gathering(self.groups, self._last_place + 1, tables, collectives)
        for place, block in enumerate(task.blocks, start=1):
            self._watch(place, block)
        recompute(task.blocks, execution, folder)

    # -- construction

    def _buffers(self, layout: Group) -> Buffers:
        """A group's buffers, zero."""
        ranks, rank, device = self.collectives.ranks, self.collectives.rank, self.collectives.device
        shard_size, padded = layout.shard(ranks), layout.padded(ranks)
        dtype, execution = DTYPES[self.recipe.precision], self.execution
        owned = range(rank * shard_size, (rank + 1) * shard_size) if self.zero_stage else range(padded)
        full = torch.zeros(padded, dtype=dtype, device=device)
        parameters = [(slot, _parameter(full[slot.offset : slot.end].view(slot.shape))) for slot in layout.slots]
        weights: Home = InMemory({"weights": full[owned.start : owned.stop]})
        if self.zero_stage == 3:
            weights = self._homes.make(execution.offload_parameters, dtype, {"weights": len(owned)})
            free(full)
        devices = {
            self._homes.device_of(place) for place in (execution.offload_parameters, execution.offload_optimizer)
        }
        own_master = dtype != torch.float32 or len(devices) > 1
        lengths = {state: len(owned) for state in STATES if own_master or state != "master"}
        optimizer = self._homes.make(execution.offload_optimizer, torch.float32, lengths)
        return Buffers(layout, parameters, owned, full, weights, optimizer)

    def initialise(self, values: InitialValues) -> None:
        """Begin from a task's initial values. A collective."""
        for buffers in self.groups:
            with buffers.states(changed=True) as states:
                for slot, start, stop in buffers.owned_parts():
                    buffers.part(states["master"], slot, start, stop).copy_(values(slot.name, start, stop))
            self._begin_to_share(buffers)()

    def _watch(self, place: int, block: nn.Module) -> None:
        """Gather and free around a block's passes, and close the groups after it when backward reaches it."""

        def before(module: nn.Module, inputs: tuple[object, ...]) -> None:
            if place == 1:
                self._begin_pass()
            if self._gathering:
                self._gathering.enter(place, 1)
            if place == 1:
                tell(inputs, 0)

        def after(module: nn.Module, inputs: object, output: object) -> None:
            if self._gathering and place + 1 == self._last_place:
                self._gathering.enter(self._last_place, -1 if torch.is_grad_enabled() else 0)
            tell(output if isinstance(output, tuple) else (output,), place)

        def tell(tensors: tuple[object, ...], reached: int) -> None:
            for tensor in tensors:
                if isinstance(tensor, Tensor) and tensor.requires_grad:
                    tensor.register_hook(lambda gradient: self._reach(reached))

        block.register_forward_pre_hook(before)
        block.register_forward_hook(after)

    def _begin_pass(self) -> None:
        """Groups are freed and their gradients taken up when one pass has left them: a second would find them gone."""
        if self._passing:
            raise RuntimeError(
                "the task's loss goes through the model more than once for a micro-batch: put all that it needs of it "
                "through in one pass"
            )
        self._passing = True

    def _reach(self, place: int) -> None:
        """The backward pass has come to `place`: what is after it is done."""
        first_done = self._first_block + place
        if self._open > first_done:
            self._close(first_done)
            if self._gathering:
                self._gathering.enter(place, -1)

    # -- passes

    @contextmanager
    def forward_pass(self) -> Iterator[None]:
        """One forward pass inside: for evaluation, under no_grad."""
        self._passing = False
        if self._gathering:
            self._gathering.enter(0, 1)
        yield
        if self._gathering:
            self._gathering.leave()

    # -- gradients

    def turns(self) -> Sequence[int]:
        """The micro-batches that this rank computes in a step, in order.

        A number from `leaves` on is a spare turn: compute any micro-batch; its gradient is dropped.
        """
        rank, ranks = self.collectives.rank, self.collectives.ranks
        if self.zero_stage < 2:
            return leaf_range(rank, ranks, self.leaves)
        rounds = -(-self.leaves // ranks)
        return range(rank, rounds * ranks, ranks)

    @contextmanager
    def micro_batch(self, leaf: int) -> Iterator[None]:
        """Run one forward and backward pass inside; its gradient is taken up as that of micro-batch `leaf`."""
        self._leaf = leaf
        self._open = len(self.groups)
        with self.forward_pass():
            yield
            self._close(0)
        self._turn += 1
        self._count_gradients()

    def _close(self, first: int) -> None:
        """The backward pass has left the open groups from `first` on: take their gradients up.

        Every rank closes groups in the same order whatever its data: a parameter without a gradient has a zero one.
        """
        for buffers in reversed(self.groups[first : self._open]):
            if self.zero_stage < 2:
                if self._in_order:
                    gradients.keep_whole(buffers, self._leaf)
                else:
                    gradients.keep_one_sum(buffers, self.collectives.rank)
            else:
                first_leaf = self._turn * self.collectives.ranks
                bucket_bytes = self.execution.bucket_bytes
                gradients.exchange_turn(buffers, first_leaf, self.leaves, self.collectives, bucket_bytes, self._flight)
        self._open = first
        if self._turn == len(self.turns()) - 1:
            self._send(first)

    def _send(self, first: int) -> None:
        """Stages 0 and 1: the sums of the groups from `first` on are complete. Every rank sends them in one order, and
        a few small groups at a time."""
        waiting = self.groups[first : self._unsent]
        if self.zero_stage > 1 or self.collectives.ranks == 1:
            return
        enough = min(gradients.WORTH_SENDING_BYTES, self.execution.bucket_bytes)
        if first and sum(4 * len(buffers.full) for buffers in waiting) < enough:
            return
        spans = kept_spans(self.collectives.ranks, self.leaves, self._in_order)
        for buffers in reversed(waiting):
            gradients.exchange_sums(
                buffers,
                spans,
                self.collectives,
                self.execution.bucket_bytes,
                self._flight,
                partial(self._landed, buffers),
                whole=self.zero_stage == 0,
                in_order=self._in_order,
            )
        self._unsent = first

    def _landed(self, buffers: Buffers, gradient: Tensor, complete: bool) -> None:
        """This rank's shard of a group's gradient has come; at stage 0 every rank gets all shards, if it has not."""
        buffers.gradient = gradient
        if self.zero_stage == 0 and not complete:
            self._coming.append(self.collectives.gather_later(gradient, "gradients"))

    def reduce(self) -> float:
        """Sum the gradients of all micro-batches; returns the global norm of the sum (not finite if any part is not).

        Every rank then holds the gradient of what it owns.
        """
        ranks, rank = self.collectives.ranks, self.collectives.rank
        self._send(0)
        self._flight.land()
        self._unsent = len(self.groups)
        coming, self._coming = self._coming, []
        for wait in coming:
            wait()
        if self.zero_stage > 1 or ranks == 1:
            for buffers in self.groups:
                buffers.gradient = gradients.shard_of_sum(buffers, self.collectives)
        whole = [buffers.gradient for buffers in self.groups if buffers.gradient is not None]
        shards = [gradient.view(ranks, -1)[rank] for gradient in whole] if self.zero_stage == 0 else whole
        self._turn = 0
        self._count_gradients()
        if not self._in_order:
            return plain_sum_of_squares(shards, self.collectives) ** 0.5
        # Padding depends on the number of ranks, so the scale of the exact sum is set by what does not.
        rows_of_all = sum(buffers.layout.size for buffers in self.groups) // ALIGNMENT
        return sum_of_squares(shards, rows_of_all, self.collectives) ** 0.5

    def _count_gradients(self) -> None:
        kept = sum(tensor.nbytes for buffers in self.groups for tensor in buffers.gradients())
        self.most_gradient_bytes = max(self.most_gradient_bytes, kept)

    # -- the update

    def update(self, learning_rate: float, scale: float, step: int) -> None:
        """One step of AdamW with the gradient times `scale`; `step` counts from 1."""
        waits = []
        for buffers, following in zip(self.groups, [*self.groups[1:], None], strict=True):
            if following:
                following.coming()
            with buffers.states(changed=True) as states:
                adamw(buffers, states, self.recipe, learning_rate, scale, step)
            buffers.gradient = None
            waits.append(self._begin_to_share(buffers))
        for wait in waits:
            wait()

    def discard(self) -> None:
        """Forget the gradient."""
        for buffers in self.groups:
            buffers.gradient = None

    def _begin_to_share(self, buffers: Buffers) -> Callable[[], None]:
        """Stages 1 and 2: every rank gets the weights that the others have made; what is returned waits for them."""
        return self.collectives.gather_later(buffers.full) if self.zero_stage in (1, 2) else lambda: None

    # -- the state, as it is saved

    def collect(self, index: int) -> dict[str, Tensor] | None:
        """Group `index`'s master weights and moments, "STATE/PARAMETER" -> tensor in its own shape; on rank 0 only.

        A collective: every rank must call it. The same for every number of ranks and every stage. Tensors are in host
        memory and the caller's own: training may go on.
        """
        buffers = self.groups[index]
        tensors = {}
        with buffers.states() as states:
            for state, value in states.items():
                value = value.to(self.collectives.device)
                shared_out = self.zero_stage and self.collectives.ranks > 1
                full = self.collectives.gather_to_first(value) if shared_out else value
                if full is not None and self.collectives.rank == 0:
                    full = full.to("cpu", copy=not shared_out)
                    for slot in buffers.layout.slots:
                        tensors[f"{state}/{slot.name}"] = full[slot.offset : slot.end].view(slot.shape)
        return tensors if self.collectives.rank == 0 else None

    def restore(self, index: int, read: InitialValues) -> None:
        """Take over a group's state as `collect` gave it; `read` gives a range of one of its tensors. A collective."""
        buffers = self.groups[index]
        with buffers.states(changed=True) as states:
            for state, target in states.items():
                for slot, start, stop in buffers.owned_parts():
                    buffers.part(target, slot, start, stop).copy_(read(f"{state}/{slot.name}", start, stop))
        self._begin_to_share(buffers)()


def _parameter(view: Tensor) -> nn.Parameter:
    """A parameter that shares a buffer's memory, but not its version: autograd is not to mind that it is refilled."""
    parameter = nn.Parameter(view.new_empty(0))
    parameter.data = view
    return parameter


def _collector(buffers: Buffers, slot: Slot):  # type: ignore[no-untyped-def]
    def collect(parameter: nn.Parameter) -> None:
        assert parameter.grad is not None
        buffers.put_gradient(slot, parameter.grad)
        parameter.grad = None

    return collect
