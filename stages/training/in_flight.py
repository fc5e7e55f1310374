"""A bounded queue of communication that is in flight while computation continues."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class InFlightOperations:
    """Operations in flight, oldest first.

    Before an operation that would exceed the limit starts, the oldest ones are completed. Computation therefore seldom
    waits for a slower rank, and small groups share one wait.
    """

    def __init__(self) -> None:
        self._operations: deque[tuple[int, Callable[[], None]]] = deque()

    def make_room(self, size_bytes: int, limit_bytes: int) -> None:
        """Complete the oldest operations until `size_bytes` more fit into `limit_bytes`, or none is left."""
        while self._operations and sum(size for size, _ in self._operations) + size_bytes > limit_bytes:
            self._operations.popleft()[1]()

    def add(self, size_bytes: int, complete: Callable[[], None]) -> None:
        """Register an operation that has started. `complete` waits for it and stores its result."""
        self._operations.append((size_bytes, complete))

    def complete_all(self) -> None:
        while self._operations:
            self._operations.popleft()[1]()
