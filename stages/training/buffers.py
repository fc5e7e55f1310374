"""One group of parameters on one rank: its flat buffers, and how a model is divided into groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from stages.training.layout import Group, Slot, arrange
from stages.training.offload import Home, Vectors
from stages.training.tree import Pieces

STATES = ("master", "first_moment", "second_moment")


def groups_of(
    model: nn.Module, blocks: Sequence[nn.Module], stem: Sequence[nn.Module] = (), head: Sequence[nn.Module] = ()
) -> list[Group]:
    """The layout of a model; see `stages.training.layout.arrange`."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    shapes = {name: tuple(parameter.shape) for parameter, name in names.items()}

    def of(module: nn.Module) -> list[str]:
        return [names[parameter] for parameter in module.parameters()]

    before, after = ([name for module in modules for name in of(module)] for modules in (stem, head))
    return arrange(shapes, [of(block) for block in blocks], before, after)


@dataclass
class Buffers:
    """One group on this rank. `owned` is the stretch of the group whose optimizer state this rank keeps."""

    layout: Group
    parameters: list[tuple[Slot, nn.Parameter]]
    owned: range
    full: Tensor  # compute precision, [padded]; at stage 3 its storage is empty unless gathered
    weights: Home  # "weights": compute precision, [owned]; a view of `full` below stage 3
    optimizer: Home  # float32, [owned]: the moments; "master" where the weights are not the master weights
    pieces: list[Pieces] = field(default_factory=list)  # sums of gradients: whole, or one for each bucket of the shard
    leaf: Tensor | None = None  # the gradient of the micro-batch at work, float32, [padded]
    missing: dict[str, Tensor] = field(default_factory=dict)  # where in it the parameters go that have not come yet
    gradient: Tensor | None = None  # of the whole batch, float32, [owned]

    def put_gradient(self, slot: Slot, gradient: Tensor) -> None:
        """One parameter's gradient of the micro-batch at work."""
        if self.leaf is None:
            self.leaf = self._empty_leaf()
        self.missing.pop(slot.name).copy_(gradient.reshape(-1))

    def take_gradient(self) -> Tensor:
        """The gradient of the micro-batch at work, zero where none has come; it is then no longer the group's."""
        leaf, self.leaf = self._empty_leaf() if self.leaf is None else self.leaf, None
        for part in self.missing.values():
            part.zero_()
        self.missing = {}
        return leaf

    def _empty_leaf(self) -> Tensor:
        """Zero between the parameters alone: they come themselves, and clearing all would be one more pass over it."""
        leaf = torch.empty(self.full.numel(), dtype=torch.float32, device=self.full.device)
        parts = leaf.split(self._stretches)
        self.missing = {slot.name: part for slot, part in zip(self.layout.slots, parts[::2], strict=True)}
        for gap in parts[1::2]:
            if gap.numel():
                gap.zero_()
        return leaf

    @cached_property
    def _stretches(self) -> list[int]:
        """Elements of each parameter and of what is free after it."""
        slots = self.layout.slots
        starts = [*(slot.offset for slot in slots[1:]), self.full.numel()]
        return [size for slot, end in zip(slots, starts, strict=True) for size in (slot.numel, end - slot.end)]

    def gradients(self) -> list[Tensor]:
        """Every gradient that is kept now: of the micro-batch at work, sums over a few, of the whole batch."""
        sums = [piece.value for pieces in self.pieces for piece in pieces.held]
        return [tensor for tensor in (self.leaf, *sums, self.gradient) if tensor is not None]

    def owned_parts(self) -> list[tuple[Slot, int, int]]:
        """What this rank owns of each parameter: the range of its elements, where that is not empty."""
        parts = [
            (slot, max(slot.offset, self.owned.start) - slot.offset, min(slot.end, self.owned.stop) - slot.offset)
            for slot in self.layout.slots
        ]
        return [(slot, start, stop) for slot, start, stop in parts if start < stop]

    def part(self, vector: Tensor, slot: Slot, start: int, stop: int) -> Tensor:
        """Where a range of a parameter's elements is in a vector of this rank's, [owned]."""
        offset = slot.offset - self.owned.start
        return vector[offset + start : offset + stop]

    def coming(self) -> None:
        """The state will soon be used."""
        self.weights.coming()
        self.optimizer.coming()

    @contextmanager
    def states(self, changed: bool = False) -> Iterator[Vectors]:
        """Master weights and moments by name, float32, [owned]. After a change the weights follow the master."""
        with ExitStack() as stack:
            weights = stack.enter_context(self.weights.opened(changed))["weights"]
            vectors = {"master": weights, **stack.enter_context(self.optimizer.opened(changed))}
            yield {state: vectors[state] for state in STATES}
            if changed and vectors["master"] is not weights:
                weights.copy_(vectors["master"])
