"""ZeRO (Rajbhandari et al., arXiv 1910.02054): one model's training state shared out over ranks, stages 0 to 3.

    stage | parameters | gradients | master weights, moments | a step sends, per rank and micro-batch of G on a rank
    0     | whole      | whole     | whole                   | gradients 2 P        (P: bytes, times (N-1)/N)
    1     | whole      | whole     | shard                   | gradients P, parameters P
    2     | whole      | shard     | shard                   | gradients G P, parameters P
    3     | shard      | shard     | shard                   | gradients G P, parameters 2 G P (outside blocks: G P)

Every stage at every number of ranks gives the same bits: every micro-batch's gradient is computed alone and summed in
the fixed tree of `stages/training/tree.py`; everything after it is elementwise on aligned shards. Stages 0 and 1 give
each rank a contiguous run of micro-batches and exchange sums once a step. Stages 2 and 3 deal micro-batches out in
turn and exchange after each, so that only shards are kept; a rank left without one in the last turn has a spare turn,
whose gradient is dropped.

Parameters live in flat buffers (`stages/training/layout.py`), one a block and one for the rest. At stage 3 a block is
gathered while the forward or the backward pass works on the one before it, and freed when it has passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stages.training.buffers import STATES, Buffers, groups_of
from stages.training.collectives import Collectives, sum_of_squares
from stages.training.layout import ALIGNMENT, Group, Slot
from stages.training.optimizer import adamw
from stages.training.recipe import Execution, Precision, Recipe
from stages.training.tree import leaf_range, piece_spans

DTYPES: Mapping[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ShardedModel:
    """A model in training. Use, on every rank alike:

        for micro_batch in sharded.turns():
            with sharded.micro_batch(micro_batch):
                loss(model, micro_batch).backward()
        norm = sharded.reduce()
        sharded.update(learning_rate, scale, step)

    `leaves` is the number of micro-batches in a batch. The model's parameters must be float32 and hold the same
    values on every rank; afterwards they are in `recipe.precision` and belong to this object.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Sequence[nn.Module],
        recipe: Recipe,
        execution: Execution,
        collectives: Collectives,
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.zero_stage = execution.zero_stage
        self.collectives = collectives
        self.leaves = recipe.micro_batches
        self._turn = 0  # micro-batches that this rank has done of the batch
        self._open = 0  # groups, from the first, whose gradients of the micro-batch at work are not taken up
        # Stage 3: the groups that are whole (None) or on their way (what waits for them).
        self._gathering: dict[int, Callable[[], None] | None] = {}
        by_name = dict(model.named_parameters())
        self.groups = [self._shard(layout, by_name) for layout in groups_of(model, blocks)]
        self._first_block = len(self.groups) - len(blocks)
        for buffers in self.groups:
            for slot, parameter in buffers.parameters:
                parameter.register_post_accumulate_grad_hook(_collector(buffers, slot))
        for index, block in enumerate(blocks):
            self._watch(self._first_block + index, block)
            if execution.recompute_every and index % execution.recompute_every == 0:
                _recompute(block)

    # -- construction

    def _shard(self, layout: Group, by_name: Mapping[str, nn.Parameter]) -> Buffers:
        ranks, rank, device = self.collectives.ranks, self.collectives.rank, self.collectives.device
        shard_size, padded = layout.shard(ranks), layout.padded(ranks)
        dtype = DTYPES[self.recipe.precision]
        own = range(rank * shard_size, (rank + 1) * shard_size)
        owned = own if self.zero_stage else range(padded)
        values = torch.zeros(padded, dtype=torch.float32, device=device)
        parameters = [(slot, by_name[slot.name]) for slot in layout.slots]
        for slot, parameter in parameters:
            if parameter.dtype != torch.float32:
                raise TypeError(f"parameter {slot.name} is {parameter.dtype}: training starts from float32")
            values[slot.offset : slot.end] = parameter.detach().reshape(-1)
        full = values if dtype == torch.float32 else values.to(dtype)
        shard = full[own.start : own.stop]
        if self.zero_stage == 3:
            shard = shard.clone()
        for slot, parameter in parameters:
            parameter.data = full[slot.offset : slot.end].view(slot.shape)
            parameter.grad = None
        if dtype != torch.float32:
            master = values[owned.start : owned.stop].clone()
        else:
            master = shard if self.zero_stage else full
        buffers = Buffers(
            layout, parameters, owned, full, shard, master, torch.zeros_like(master), torch.zeros_like(master)
        )
        if self.zero_stage == 3:
            _free(full)
        return buffers

    def _watch(self, index: int, block: nn.Module) -> None:
        """Gather and free a block around its passes, and close the blocks after it when backward reaches it."""

        def before(module: nn.Module, inputs: object) -> None:
            self._gather(index, ahead=1)

        def after(module: nn.Module, inputs: object, output: object) -> None:
            self._release(index)
            for tensor in output if isinstance(output, tuple) else (output,):
                if isinstance(tensor, Tensor) and tensor.requires_grad:
                    tensor.register_hook(reached)

        def reached(gradient: Tensor) -> None:
            if self._open > index:
                self._close(index + 1)
                self._gather(index, ahead=-1)

        block.register_forward_pre_hook(before)
        block.register_forward_hook(after)

    # -- parameters

    def _gather(self, index: int, ahead: int = 0) -> None:
        """Stage 3: make a group whole, and begin to gather the block `ahead` of it (+1, -1) while this one works."""
        if self.zero_stage == 3:
            self._begin(index)
            if self._first_block <= index + ahead < len(self.groups):
                self._begin(index + ahead)
            wait = self._gathering[index]
            if wait is not None:
                wait()
                self._gathering[index] = None

    def _begin(self, index: int) -> None:
        if index not in self._gathering:
            buffers = self.groups[index]
            buffers.full.untyped_storage().resize_(buffers.full.numel() * buffers.full.element_size())
            self._gathering[index] = self.collectives.gather_later(buffers.full, shard=buffers.shard)

    def _release(self, index: int) -> None:
        if index in self._gathering:
            del self._gathering[index]
            _free(self.groups[index].full)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """The parameters outside the blocks are in place; forward passes work. For evaluation, under no_grad."""
        for index in range(self._first_block):
            self._gather(index)
        yield
        for index in range(self._first_block):
            self._release(index)

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
        with self.whole():
            yield
            self._close(0)
        self._turn += 1

    def _close(self, first: int) -> None:
        """The backward pass has left the open groups from `first` on: take their gradients up.

        Every rank closes groups in the same order whatever its data: a parameter without a gradient has a zero one.
        """
        for index in range(self._open - 1, first - 1, -1):
            buffers = self.groups[index]
            leaf = buffers.leaf_gradient()
            buffers.leaf = None
            self._release(index)
            if self.zero_stage < 2:
                buffers.pieces.add(self._leaf, 1, leaf)
                continue
            ranks = self.collectives.ranks
            for source, shard in enumerate(self.collectives.exchange(leaf.view(1, -1), [1] * ranks)):
                number = self._turn * ranks + source
                if number < self.leaves:
                    buffers.pieces.add(number, 1, shard)
            buffers.pieces.settle()
        self._open = first

    def reduce(self) -> float:
        """Sum the gradients of all micro-batches; returns the global norm of the sum (not finite if any part is not).

        Every rank then holds the gradient of what it owns.
        """
        ranks, rank = self.collectives.ranks, self.collectives.rank
        spans = [piece_spans(leaf_range(other, ranks, self.leaves)) for other in range(ranks)]
        shards = []
        for buffers in self.groups:
            if self.zero_stage < 2 and ranks > 1:
                held = [piece.value for piece in buffers.pieces.take()]
                rows = held[0].view(1, -1) if len(held) == 1 else torch.stack(held) if held else _no_rows(buffers)
                received = self.collectives.exchange(rows, [len(of_rank) for of_rank in spans])
                for (start, length), value in zip((s for of_rank in spans for s in of_rank), received, strict=True):
                    buffers.pieces.add(start, length, value)
                buffers.pieces.settle()
            shard = buffers.pieces.total()
            buffers.gradient = shard
            if self.zero_stage == 0 and ranks > 1:
                buffers.gradient = shard.new_empty(buffers.layout.padded(ranks))
                self.collectives.gather(buffers.gradient, "gradients", shard)
            size = buffers.layout.shard(ranks)
            shards.append(buffers.gradient[rank * size : (rank + 1) * size] if self.zero_stage == 0 else shard)
        self._turn = 0
        # Padding depends on the number of ranks, so the scale of the exact sum is set by what does not.
        rows_of_all = sum(buffers.layout.size for buffers in self.groups) // ALIGNMENT
        return sum_of_squares(shards, rows_of_all, self.collectives) ** 0.5

    # -- the update

    def update(self, learning_rate: float, scale: float, step: int) -> None:
        """One step of AdamW with the gradient times `scale`; `step` counts from 1."""
        adamw(self.groups, self.recipe, learning_rate, scale, step)
        self.discard()
        self._publish()

    def discard(self) -> None:
        """Forget the gradient."""
        for buffers in self.groups:
            buffers.gradient = None

    def _publish(self) -> None:
        """Bring the parameters up to date with the master weights."""
        for buffers in self.groups:
            if buffers.master.dtype != buffers.full.dtype:
                (buffers.shard if self.zero_stage else buffers.full).copy_(buffers.master)
            if self.zero_stage in (1, 2):
                self.collectives.gather(buffers.full)

    # -- the state, as it is saved

    def collect(self, index: int) -> dict[str, Tensor] | None:
        """Group `index`'s master weights and moments, "STATE/PARAMETER" -> tensor in its own shape; on rank 0 only.

        A collective: every rank must call it. The same for every number of ranks and every stage.
        """
        buffers = self.groups[index]
        tensors = {}
        for state in STATES:
            value: Tensor = getattr(buffers, state)
            full = self.collectives.gather_to_first(value) if self.zero_stage else value
            if full is not None and self.collectives.rank == 0:
                for slot in buffers.layout.slots:
                    tensors[f"{state}/{slot.name}"] = full[slot.offset : slot.end].view(slot.shape)
        return tensors if self.collectives.rank == 0 else None

    def restore(self, index: int, tensors: Mapping[str, Tensor]) -> None:
        """Take over a group's state as `collect` gave it. Call `restored` after the last group."""
        buffers = self.groups[index]
        owned = buffers.owned
        for state in STATES:
            target: Tensor = getattr(buffers, state)
            for slot in buffers.layout.slots:
                start, stop = max(slot.offset, owned.start), min(slot.end, owned.stop)
                if start < stop:
                    source = tensors[f"{state}/{slot.name}"].reshape(-1)
                    target[start - owned.start : stop - owned.start] = source[start - slot.offset : stop - slot.offset]

    def restored(self) -> None:
        """All groups were restored: bring the parameters up to date."""
        self._publish()


def _recompute(block: nn.Module) -> None:
    """Keep no activations of a block but its inputs (Chen et al., arXiv 1604.06174); gives the same bits."""
    forward = block.forward

    def checkpointed(*arguments: Any, **named: Any) -> Any:
        return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False, **named)

    block.forward = checkpointed  # hooks stay outside: the block is gathered once for both computations


def _collector(buffers: Buffers, slot: Slot):  # type: ignore[no-untyped-def]
    def collect(parameter: nn.Parameter) -> None:
        assert parameter.grad is not None
        buffers.leaf_gradient()[slot.offset : slot.end].copy_(parameter.grad.reshape(-1))
        parameter.grad = None

    return collect


def _no_rows(buffers: Buffers) -> Tensor:
    return torch.empty(0, buffers.full.numel(), dtype=torch.float32, device=buffers.full.device)


def _free(full: Tensor) -> None:
    full.untyped_storage().resize_(0)
