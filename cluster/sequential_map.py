"""A map over items in this process, one after another: without a cluster, or with one worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from cluster.base import Send
from stages.base import Stopped

Item = TypeVar("Item")
T = TypeVar("T")


def map_sequentially(function: Callable[[Item], T], items: Sequence[Item], send: Send) -> Iterator[tuple[int, T]]:
    """(Index, result) of every item, in order. Raises Stopped between two items if the step was asked to stop."""
    for index, item in enumerate(items):
        if send.stopping():
            raise Stopped
        yield index, function(item)
