"""How far the part that this process is reading has been read. For progress: asked now and then, by another thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_read_so_far: list[Callable[[], float]] = []  # of what is open in this process, the innermost last


@contextmanager
def following(read_so_far: Callable[[], float]) -> Iterator[None]:
    """While the context lasts, `read_so_far` tells how many stored bytes of a part have been read."""
    _read_so_far.append(read_so_far)
    try:
        yield
    finally:
        _read_so_far.remove(read_so_far)


def position() -> float:
    """Stored bytes that have been read of what is open; 0 if nothing is."""
    try:
        return max(_read_so_far[-1](), 0.0)
    except (IndexError, ValueError, OSError):  # it was closed just now
        return 0.0
