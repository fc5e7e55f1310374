"""Which waiting steps are to be considered next, so that a run with many steps does not look at all of them each time.

A step is considered at the beginning, whenever one of its inputs finishes, and again as long as it waits for something
else than an input.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping


class Agenda:
    """The steps to consider, in the order of the plan."""

    def __init__(self, inputs: Mapping[str, Iterable[str]]) -> None:
        """`inputs`: of every step, in an order in which the steps can run."""
        self._names = list(inputs)
        self._places = {name: place for place, name in enumerate(self._names)}
        self._followers: dict[str, list[str]] = {name: [] for name in self._names}
        for name, sources in inputs.items():
            for source in sources:
                self._followers[source].append(name)
        self._now = list(range(len(self._names)))  # a heap of places
        self._next: set[str] = set()
        self._for_room: set[str] = set()

    def round(self, room: bool) -> Iterator[str]:
        """The steps to consider now, with those that are added meanwhile.

        `room`: whether resources may have become free since the last round.
        """
        due = self._next | self._for_room if room else self._next
        self._next = set()
        if room:
            self._for_room = set()
        for name in due:
            heapq.heappush(self._now, self._places[name])
        while self._now:
            yield self._names[heapq.heappop(self._now)]

    def again(self, name: str) -> None:
        """Consider a step in the next round too."""
        self._next.add(name)

    def when_there_is_room(self, name: str) -> None:
        """Consider a step again once resources may have become free."""
        self._for_room.add(name)

    def finished(self, name: str) -> None:
        """Consider what depends on a step that has finished."""
        for follower in self._followers[name]:
            heapq.heappush(self._now, self._places[follower])

    @property
    def waits_for_room(self) -> bool:
        """Whether a step could start if others did not use the cluster."""
        return bool(self._for_room)
