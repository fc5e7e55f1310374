"""How parameters lie in flat buffers: one group a block, padded so that every rank owns an equal shard.

Every parameter starts at a multiple of `ALIGNMENT` elements and so does every shard. So an elementwise kernel meets
each element at the same place of a vector register however the group is cut, and rounds it in the same way: one of
the reasons why training does not depend on the number of ranks. Pure Python: the memory planner uses it as well.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
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
    """Parameters that are reduced, gathered and freed together: a block, or what lies outside all blocks.

    `places`: where in a pass they are used; 0 is before the blocks, then each block has its number from 1, and what
    follows the blocks is one more.
    """

    name: str
    slots: tuple[Slot, ...]
    places: tuple[int, ...] = ()

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


def group(name: str, shapes: Mapping[str, tuple[int, ...]], places: tuple[int, ...] = ()) -> Group:
    """Lay parameters out one after the other, in the order given."""
    slots = []
    offset = 0
    for parameter, shape in shapes.items():
        slot = Slot(parameter, tuple(shape), offset)
        slots.append(slot)
        offset = _aligned(slot.end)
    return Group(name, tuple(slots), places)


def arrange(
    shapes: Mapping[str, tuple[int, ...]],
    blocks: Sequence[Collection[str]],
    stem: Collection[str] = (),
    head: Collection[str] = (),
) -> list[Group]:
    """The groups of a model, in the order in which a pass first comes to them: what is used before the blocks (and
    after them as well, as a tied embedding is), each block, what is used after them only.

    `shapes` has every parameter; `blocks`, `stem` and `head` name those of each block, before and after them. One that
    is outside the blocks and in neither `stem` nor `head` may be used on both sides. In each group matrices come before
    norms and biases, so that weight decay applies to one stretch.
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
    return [
        group(title, {name: shapes[name] for name in sorted(names, key=lambda name: len(shapes[name]) < 2)}, places)
        for title, names, places in members
        if names
    ]


def bucket_columns(shard: int, rows: int, bucket_bytes: int) -> list[slice]:
    """Cuts a shard's elements so that `rows` stretches of a cut, float32, are at most `bucket_bytes`; none is empty."""
    width = max(ALIGNMENT, bucket_bytes // (4 * rows) // ALIGNMENT * ALIGNMENT)
    return [slice(start, min(start + width, shard)) for start in range(0, shard, width)]
