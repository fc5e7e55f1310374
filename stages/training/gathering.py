"""ZeRO stage 3: which groups are gathered while a pass moves over its positions, forwards and then backwards.

Position 0 is before the blocks, each block is one position, and what follows the blocks is the last
(`layout.arrange`). At most two neighbouring positions are gathered at a time: the current one and, prefetched in the
background, the next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from torch import Tensor

from stages.parallel.collectives import Collectives
from stages.training.buffers import GroupBuffers


class ParameterGatherer:
    """Gathers the groups that a pass uses, and frees them. Every rank must enter the same positions in the same order.

    `positions`: their number. `tables`: parameters that are only looked up, as an embedding is.
    """

    def __init__(
        self, groups: Sequence[GroupBuffers], positions: int, tables: Collection[Tensor], collectives: Collectives
    ) -> None:
        self._groups, self._collectives = groups, collectives
        self._forward = [
            [index for index, group in enumerate(groups) if position in group.layout.positions]
            for position in range(positions)
        ]
        # The backward pass of a lookup does not read its table.
        known = set(tables)
        lookups = [index for index, one in enumerate(groups) if all(tensor in known for _, tensor in one.parameters)]
        self._backward = [[index for index in self._forward[0] if index not in lookups], *self._forward[1:]]
        self._gathered: dict[int, Callable[[], None] | None] = {}  # group -> waits for its gather, while in flight

    def enter(self, position: int, step: int) -> None:
        """Wait for the groups of `position`, start to gather those of `position + step`, and free all others.

        `step` is 1 in a forward pass, -1 in a backward pass and at the turn to it, and 0 where a pass ends.
        """
        used = self._backward if step < 0 else self._forward
        following = (
            [used[at] if 0 <= at < len(used) else [] for at in (position + step, position + 2 * step)] if step else [[]]
        )
        for index in set(self._gathered).difference(used[position], following[0]):
            self._free(index)
        for index in (*used[position], *following[0]):
            self._start(index)
        for index in following[-1]:
            if index not in self._gathered:
                self._groups[index].weights.prefetch()
        for index in used[position]:
            self._wait(index)

    def leave(self) -> None:
        """End the pass: free everything."""
        for index in list(self._gathered):
            self._free(index)

    def _start(self, index: int) -> None:
        if index not in self._gathered:
            buffers = self._groups[index]
            buffers.allocate_full()
            with buffers.weights.open() as vectors:
                self._gathered[index] = self._collectives.start_all_gather(buffers.full, shard=vectors["weights"])

    def _wait(self, index: int) -> None:
        wait = self._gathered[index]
        if wait is not None:
            wait()
            self._gathered[index] = None

    def _free(self, index: int) -> None:
        self._wait(index)
        del self._gathered[index]
        self._groups[index].free_full()
