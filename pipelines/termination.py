"""SIGTERM and SIGHUP outside a run: they end the command like Ctrl-C, and what is open is closed.

An exception from a handler can be lost. It is raised wherever the program is, and OmegaConf, for example, discards
whatever is raised in some of its methods. What was lost is raised again at the end of each composition.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """A signal has asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


_received: list[int] = []  # the numbers of signals


def terminate(number: int, frame: FrameType | None) -> None:
    """The handler of these signals. Raises Terminated."""
    _received.append(number)
    raise Terminated(number)


def raise_again() -> None:
    """Raise Terminated if a signal was received."""
    if _received:
        raise Terminated(_received[0])


@contextmanager
def not_lost() -> Iterator[None]:
    """At the end, raise Terminated if a signal was received within, whatever became of the first exception."""
    try:
        yield
    finally:
        raise_again()
