"""The signals that ask a command to stop in order: Ctrl-C, SIGTERM, and SIGHUP when its terminal or connection is gone.

A signal that is ignored when a command starts stays ignored: `nohup` does that to SIGHUP, and a shell to SIGINT for
what a script starts with `&`. SIGQUIT keeps its meaning: it ends a command at once, and nothing is saved.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the stop signals that are not ignored. Only in the main thread."""
    heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def keep_hangup_from_children() -> None:
    """Let no process that this thread starts end by the SIGHUP of a lost terminal, which reaches the whole group.

    They serve this process, which answers SIGHUP by stopping them in order. Processes inherit what is blocked.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
