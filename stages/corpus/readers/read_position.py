"""The read position in the part that this process is reading, for progress reports by another thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_read_so_far: list[Callable[[], float]] = []  # one for each open file of this process, the innermost last


@contextmanager
def tracking_position(read_so_far: Callable[[], float]) -> Iterator[None]:
    """While the context lasts, `read_so_far` gives the number of stored bytes of a part that have been read."""
    _read_so_far.append(read_so_far)
    try:
        yield
    finally:
        _read_so_far.remove(read_so_far)


def current_position() -> float:
    """Stored bytes that have been read of the innermost open file; 0 if none is open."""
    try:
        return max(_read_so_far[-1](), 0.0)
    except (IndexError, ValueError, OSError):  # closed in the meantime
        return 0.0
