"""How parameters lie in flat buffers: one group a block, padded so that every rank owns an equal shard.

Every parameter starts at a multiple of `ALIGNMENT` elements and so does every shard. So an elementwise kernel meets
each element at the same place of a vector register however the group is cut, and rounds it in the same way: one of
the reasons why training does not depend on the number of ranks. Pure Python: the memory planner uses it as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

ALIGNMENT = 64


def _aligned(count: int, multiple: int = ALIGNMENT) -> int:
    return -(-count // multiple) * multiple


def is_decayed(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a parameter is a matrix (or a stack of them, one an expert) and not a norm's or a bias."""
    return len(shape) > 1 and not name.endswith("bias")


@dataclass(frozen=True)
class Slot:
    """Where one parameter lies in its group."""

    name: str
    shape: tuple[int, ...]
    offset: int  # elements from the start of the group

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        return self.offset + self.numel

    @property
    def decayed(self) -> bool:
        """Whether weight decay applies: to matrices and embeddings, not to norms and biases."""
        return is_decayed(self.name, self.shape)


@dataclass(frozen=True)
class Group:
    """Parameters that are reduced, gathered and freed together: a block, or what lies outside all blocks."""

    name: str
    slots: tuple[Slot, ...]

    @property
    def numel(self) -> int:
        """Elements of the parameters alone."""
        return sum(slot.numel for slot in self.slots)

    @property
    def size(self) -> int:
        """Elements from the first parameter to the aligned end of the last."""
        return _aligned(self.slots[-1].end)

    def shard(self, ranks: int) -> int:
        """Elements that each of `ranks` ranks owns."""
        return _aligned(self.size, ALIGNMENT * ranks) // ranks

    def padded(self, ranks: int) -> int:
        """Elements of the whole group when `ranks` ranks own equal shards of it."""
        return self.shard(ranks) * ranks


def group(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Group:
    """Lay parameters out one after the other, in the order given."""
    slots = []
    offset = 0
    for parameter, shape in shapes.items():
        slot = Slot(parameter, tuple(shape), offset)
        slots.append(slot)
        offset = _aligned(slot.end)
    return Group(name, tuple(slots))
