"""The layout of parameters in flat buffers: one group per block, padded so that every rank owns an equal shard.

Every parameter and every shard starts at a multiple of `ALIGNMENT` elements. An elementwise kernel therefore processes
each element in the same lane of a vector register, and rounds it in the same way, wherever the group is cut: one of the
reasons why training does not depend on the number of ranks. This module is free of torch, because the memory planner
uses it as well.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

ALIGNMENT = 64  # elements


def _aligned(count: int, multiple: int = ALIGNMENT) -> int:
    return -(-count // multiple) * multiple


def is_decayed(name: str, shape: tuple[int, ...]) -> bool:
    """Whether weight decay applies to a parameter: to matrices (or stacks of one matrix per expert), not to norms and
    biases."""
    return len(shape) > 1 and not name.endswith("bias")


@dataclass(frozen=True)
class Slot:
    """The position of one parameter in its group."""

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
        return is_decayed(self.name, self.shape)


@dataclass(frozen=True)
class Group:
    """Parameters that are reduced, gathered and freed together: those of a block, or some outside all blocks.

    `frozen`: whether they are not trained. They then have no gradient and no optimizer state.

    `positions`: where a pass through the model uses them. 0 is before the blocks, block number i (from 0) is i + 1, and
    what follows the blocks is the last position.
    """

    name: str
    slots: tuple[Slot, ...]
    positions: tuple[int, ...] = ()
    frozen: bool = False

    @property
    def numel(self) -> int:
        """Elements of the parameters, without padding."""
        return sum(slot.numel for slot in self.slots)

    @property
    def size(self) -> int:
        """Elements from the start of the first parameter to the aligned end of the last."""
        return _aligned(self.slots[-1].end)

    def shard(self, ranks: int) -> int:
        """Elements that each of `ranks` ranks owns, padding included."""
        return _aligned(self.size, ALIGNMENT * ranks) // ranks

    def padded(self, ranks: int) -> int:
        """Elements of the whole group, padded to equal shards for `ranks` ranks."""
        return self.shard(ranks) * ranks


def group(
    name: str, shapes: Mapping[str, tuple[int, ...]], positions: tuple[int, ...] = (), frozen: bool = False
) -> Group:
    """A group of the parameters in `shapes` (name to shape), in that order."""
    slots = []
    offset = 0
    for parameter, shape in shapes.items():
        slot = Slot(parameter, tuple(shape), offset)
        slots.append(slot)
        offset = _aligned(slot.end)
    return Group(name, tuple(slots), positions, frozen)


def arrange(
    shapes: Mapping[str, tuple[int, ...]],
    blocks: Sequence[Collection[str]],
    stem: Collection[str] = (),
    head: Collection[str] = (),
    frozen: Collection[str] = (),
) -> list[Group]:
    """The groups of a model, in the order in which a forward pass first uses them: parameters used before the blocks
    only, those used before and after them (a tied embedding), each block, those used after the blocks only.

    `shapes` has every parameter. `blocks`, `stem` and `head` name those of each block, before the blocks and after
    them. A parameter in none of these is taken to be used before and after the blocks. Those that are `frozen` form a
    group of their own at each of these places. Within a group matrices precede norms and biases, so that weight decay
    applies to one contiguous range.
    """
    last = len(blocks) + 1
    inside = {name for block in blocks for name in block}
    outside = [name for name in shapes if name not in inside]
    before = [name for name in outside if name in stem and name not in head]
    after = [name for name in outside if name in head and name not in stem]
    both = [name for name in outside if name not in before and name not in after]
    members: list[tuple[str, Collection[str], tuple[int, ...]]] = [("stem", before, (0,)), ("shared", both, (0, last))]
    members += [(f"block-{index:03d}", block, (index + 1,)) for index, block in enumerate(blocks)]
    members += [("head", after, (last,))]
    groups = []
    for title, names, positions in members:
        ordered = sorted(names, key=lambda name: len(shapes[name]) < 2)
        for kept, suffix in ((False, ""), (True, "-frozen")):
            chosen = {name: shapes[name] for name in ordered if (name in frozen) is kept}
            if chosen:
                groups.append(group(title + suffix, chosen, positions, kept))
    return groups


def bucket_columns(shard: int, rows: int, bucket_bytes: int) -> list[slice]:
    """Cut a shard of `shard` elements into ranges, such that `rows` float32 rows of a range take at most `bucket_bytes`
    (or are `ALIGNMENT` elements wide). No range is empty."""
    width = max(ALIGNMENT, bucket_bytes // (4 * rows) // ALIGNMENT * ALIGNMENT)
    return [slice(start, min(start + width, shard)) for start in range(0, shard, width)]
