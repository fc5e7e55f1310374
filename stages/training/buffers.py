"""One group of parameters on one rank: its flat buffers, and how a model is divided into groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from stages.training.layout import Group, Slot, group
from stages.training.tree import Pieces

STATES = ("master", "first_moment", "second_moment")


def groups_of(model: nn.Module, blocks: Sequence[nn.Module]) -> list[Group]:
    """The layout of a model: what lies outside the blocks first, then a group for each block.

    In each group, matrices come before norms and biases, so that weight decay applies to one stretch.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    of_blocks = [[names[parameter] for parameter in block.parameters()] for block in blocks]
    inside = {name for block in of_blocks for name in block}
    rest = [name for name in names.values() if name not in inside]
    shapes = {name: tuple(parameter.shape) for parameter, name in names.items()}
    titles = ["rest", *(f"block-{index:03d}" for index in range(len(blocks)))]
    return [
        group(title, {name: shapes[name] for name in sorted(members, key=lambda name: len(shapes[name]) < 2)})
        for title, members in zip(titles, [rest, *of_blocks], strict=True)
        if members
    ]


@dataclass
class Buffers:
    """One group on this rank. `owned` is the stretch of the group whose optimizer state this rank keeps."""

    layout: Group
    parameters: list[tuple[Slot, nn.Parameter]]
    owned: range
    full: Tensor  # compute precision, [padded]; at stage 3 its storage is empty unless gathered
    shard: Tensor  # compute precision, [padded / ranks]; a view of `full` below stage 3
    master: Tensor  # float32, [owned]; shares memory with the parameters where they are float32
    first_moment: Tensor  # float32, [owned]
    second_moment: Tensor  # float32, [owned]
    pieces: Pieces = field(default_factory=Pieces)
    leaf: Tensor | None = None  # the gradient of the micro-batch at work, float32, [padded]
    gradient: Tensor | None = None  # of the whole batch, float32, [owned]

    def leaf_gradient(self) -> Tensor:
        """The gradient of the micro-batch at work; zero where none has come yet."""
        if self.leaf is None:
            self.leaf = torch.zeros(self.full.numel(), dtype=torch.float32, device=self.full.device)
        return self.leaf
