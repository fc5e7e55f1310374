"""Stage 3: which groups are whole while a pass goes over its places, forwards and then backwards.

Place 0 is before the blocks, then each block is one, and what follows the blocks is the last (`layout.arrange`). Two
neighbouring places are whole at most: the one at work and, on its way, the one that comes next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from torch import Tensor, nn

from stages.parallel.collectives import Collectives
from stages.training.buffers import Buffers


class Gathering:
    """Gathers groups and frees them. Every rank must enter the same places in the same order."""

    def __init__(
        self, groups: Sequence[Buffers], places: int, tables: Collection[nn.Parameter], collectives: Collectives
    ) -> None:
        self.groups, self.collectives = groups, collectives
        self._forward = [[i for i, one in enumerate(groups) if place in one.layout.places] for place in range(places)]
        # The backward pass of a lookup reads nothing of its table.
        known = set(tables)
        looked_up = [i for i, one in enumerate(groups) if all(tensor in known for _, tensor in one.parameters)]
        self._backward = [[i for i in self._forward[0] if i not in looked_up], *self._forward[1:]]
        self._whole: dict[int, Callable[[], None] | None] = {}  # what waits for a group that is on its way

    def enter(self, place: int, step: int) -> None:
        """Make whole what `place` uses, begin with what comes next, at `place + step`, and free all else.

        `step` is 1 in a forward pass, -1 in a backward pass and where one turns into the other, 0 where it ends.
        """
        used = self._backward if step < 0 else self._forward
        following = (
            [used[at] if 0 <= at < len(used) else [] for at in (place + step, place + 2 * step)] if step else [[]]
        )
        for index in set(self._whole).difference(used[place], following[0]):
            self._free(index)
        for index in (*used[place], *following[0]):
            self._begin(index)
        for index in following[-1]:
            if index not in self._whole:
                self.groups[index].weights.coming()
        for index in used[place]:
            self._await(index)

    def leave(self) -> None:
        """The pass is over: free everything."""
        for index in list(self._whole):
            self._free(index)

    def _begin(self, index: int) -> None:
        if index not in self._whole:
            buffers = self.groups[index]
            buffers.full.untyped_storage().resize_(buffers.full.numel() * buffers.full.element_size())
            with buffers.weights.opened() as vectors:
                self._whole[index] = self.collectives.gather_later(buffers.full, shard=vectors["weights"])

    def _await(self, index: int) -> None:
        wait = self._whole[index]
        if wait is not None:
            wait()
            self._whole[index] = None

    def _free(self, index: int) -> None:
        self._await(index)
        del self._whole[index]
        free(self.groups[index].full)


def free(full: Tensor) -> None:
    """Give up the memory of a whole group; its views stay, and see what is gathered into it next."""
    full.untyped_storage().resize_(0)
