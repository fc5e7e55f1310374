"""The flat buffers of one group of parameters on one rank, and the division of a model into groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from stages.training.layout import Group, Slot, arrange
from stages.training.offload import MemoryStorage, Storage, StorageFactory, Vectors
from stages.training.recipe import Execution, Precision
from stages.training.summation_tree import PartialSums

STATES = ("master", "first_moment", "second_moment")
DTYPES: Mapping[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def groups_of(
    model: nn.Module, blocks: Sequence[nn.Module], stem: Sequence[nn.Module] = (), head: Sequence[nn.Module] = ()
) -> list[Group]:
    """The groups of a model's parameters; see `stages.training.layout.arrange`. Parameters that do not require a
    gradient are frozen."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    shapes = {name: tuple(parameter.shape) for parameter, name in names.items()}

    def of(module: nn.Module) -> list[str]:
        return [names[parameter] for parameter in module.parameters()]

    before, after = ([name for module in modules for name in of(module)] for modules in (stem, head))
    frozen = {name for parameter, name in names.items() if not parameter.requires_grad}
    return arrange(shapes, [of(block) for block in blocks], before, after, frozen)


@dataclass
class GroupBuffers:
    """One group on this rank. `owned` is the range of the group whose optimizer state this rank keeps.

    Shapes are in elements: `padded` is the whole group with padding, `owned` is the range.
    """

    layout: Group
    parameters: list[tuple[Slot, nn.Parameter]]
    owned: range
    full: Tensor  # [padded], in the precision of compute; at stage 3 its memory is allocated only while gathered
    weights: Storage  # "weights" [owned], in the precision of compute; a view of `full` below stage 3
    optimizer: Storage  # float32 [owned]: moments, and "master" if weights are not the master weights; none if frozen
    partial_sums: list[PartialSums] = field(default_factory=list)  # of gradients: whole, or one per bucket of the shard
    micro_batch_gradient: Tensor | None = None  # float32 [padded], of the current micro-batch
    missing: dict[str, Tensor] = field(default_factory=dict)  # views of it, for parameters whose gradient is not in yet
    gradient: Tensor | None = None  # float32, of the whole batch: [owned]

    # -- parameters

    def allocate_full(self) -> None:
        """Stage 3: allocate the memory of the whole group. Its content is undefined."""
        self.full.untyped_storage().resize_(self.full.numel() * self.full.element_size())

    def free_full(self) -> None:
        """Stage 3: free the memory of the whole group. Views stay valid for the next time it is allocated."""
        self.full.untyped_storage().resize_(0)

    # -- gradients

    def put_gradient(self, slot: Slot, gradient: Tensor) -> None:
        """Store one parameter's gradient of the current micro-batch."""
        if self.micro_batch_gradient is None:
            self.micro_batch_gradient = self._empty_gradient()
        self.missing.pop(slot.name).copy_(gradient.reshape(-1))

    def take_gradient(self) -> Tensor:
        """Remove and return the gradient of the current micro-batch, with zeros where no gradient was put."""
        gradient = self._empty_gradient() if self.micro_batch_gradient is None else self.micro_batch_gradient
        self.micro_batch_gradient = None
        for part in self.missing.values():
            part.zero_()
        self.missing = {}
        return gradient

    def _empty_gradient(self) -> Tensor:
        """Only the gaps between parameters are zeroed here: zeroing everything would be one more pass over memory."""
        gradient = torch.empty(self.full.numel(), dtype=torch.float32, device=self.full.device)
        parts = gradient.split(self._lengths)
        self.missing = {slot.name: part for slot, part in zip(self.layout.slots, parts[::2], strict=True)}
        for gap in parts[1::2]:
            if gap.numel():
                gap.zero_()
        return gradient

    @cached_property
    def _lengths(self) -> list[int]:
        """Elements of each parameter, and of the gap that follows it."""
        slots = self.layout.slots
        starts = [*(slot.offset for slot in slots[1:]), self.full.numel()]
        return [size for slot, end in zip(slots, starts, strict=True) for size in (slot.numel, end - slot.end)]

    def gradients(self) -> list[Tensor]:
        """Every gradient that is held now: of the current micro-batch, partial sums, and of the whole batch."""
        sums = [partial_sum.value for sums in self.partial_sums for partial_sum in sums.held]
        return [tensor for tensor in (self.micro_batch_gradient, *sums, self.gradient) if tensor is not None]

    # -- what this rank owns

    def owned_parts(self) -> list[tuple[Slot, int, int]]:
        """The non-empty ranges of parameters that this rank owns: (slot, first element, end)."""
        parts = [
            (slot, max(slot.offset, self.owned.start) - slot.offset, min(slot.end, self.owned.stop) - slot.offset)
            for slot in self.layout.slots
        ]
        return [(slot, start, stop) for slot, start, stop in parts if start < stop]

    def part(self, vector: Tensor, slot: Slot, start: int, stop: int) -> Tensor:
        """The view of `vector`, [owned], that holds the given range of a parameter's elements."""
        offset = slot.offset - self.owned.start
        return vector[offset + start : offset + stop]

    def prefetch(self) -> None:
        """Announce that the state will be used soon."""
        self.weights.prefetch()
        self.optimizer.prefetch()

    @contextmanager
    def states(self, changed: bool = False) -> Iterator[Vectors]:
        """Master weights and moments by name, float32 [owned]. If `changed`, the weights are updated from the master
        weights at the end. A frozen group has no moments, and its "master" are the weights themselves."""
        with ExitStack() as stack:
            weights = stack.enter_context(self.weights.open(changed))["weights"]
            vectors = {"master": weights, **stack.enter_context(self.optimizer.open(changed))}
            yield {state: vectors[state] for state in STATES if state in vectors}
            if changed and vectors["master"] is not weights:
                weights.copy_(vectors["master"])


def create_buffers(
    layout: Group, precision: Precision, execution: Execution, rank: int, ranks: int, storages: StorageFactory
) -> GroupBuffers:
    """The buffers of a group on rank `rank` of `ranks`, all zero."""
    dtype, shard_size, padded = DTYPES[precision], layout.shard(ranks), layout.padded(ranks)
    owned = range(rank * shard_size, (rank + 1) * shard_size) if execution.zero_stage else range(padded)
    full = torch.zeros(padded, dtype=dtype, device=storages.device)
    parameters = [
        (slot, _parameter(full[slot.offset : slot.end].view(slot.shape), not layout.frozen)) for slot in layout.slots
    ]
    weights: Storage = MemoryStorage({"weights": full[owned.start : owned.stop]})
    if execution.zero_stage == 3:
        weights = storages.create(execution.offload_parameters, dtype, {"weights": len(owned)})
    devices = {storages.device_for(target) for target in (execution.offload_parameters, execution.offload_optimizer)}
    separate_master = dtype != torch.float32 or len(devices) > 1
    lengths = {state: len(owned) for state in STATES if separate_master or state != "master"}
    optimizer: Storage = MemoryStorage({})
    if not layout.frozen:
        optimizer = storages.create(execution.offload_optimizer, torch.float32, lengths)
    buffers = GroupBuffers(layout, parameters, owned, full, weights, optimizer)
    if execution.zero_stage == 3:
        buffers.free_full()
    return buffers


def _parameter(view: Tensor, trained: bool) -> nn.Parameter:
    """A parameter that shares a buffer's memory but not its version counter: autograd must not object when the buffer
    is filled again."""
    parameter = nn.Parameter(view.new_empty(0), requires_grad=trained)
    parameter.data = view
    return parameter
