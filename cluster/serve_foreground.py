"""Serving in the foreground until a signal, after which the requests in flight are finished."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

from stages.base import Application, Served, StageError

EXAMPLE = """curl {}/v1/completions -H 'content-type: application/json' -d '{{"prompt": "def ", "max_tokens": 40}}'"""


def serve(start: Callable[[Application], Served], application: Application) -> int:
    """Serve until SIGINT or SIGTERM, finish the requests in flight, and return the exit code 0.

    Prints the address once it answers. A second signal raises KeyboardInterrupt. Raises StageError if the server could
    not be started, or ended without a signal. Must be called in the main thread.
    """
    stop_requested = threading.Event()
    ready = False

    def request_stop(_: int, __: FrameType | None) -> None:
        if stop_requested.is_set() or not ready:
            raise KeyboardInterrupt
        stop_requested.set()

    previous = {number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        try:
            server = start(application)
        except KeyboardInterrupt:
            return 0
        ready = True
        try:
            print(
                f"\n{application.name} is served at {server.url} (Ctrl-C ends it). Try:\n"
                f"  {EXAMPLE.format(server.url)}",
                flush=True,
            )
            while not stop_requested.wait(1.0):
                if not server.running():
                    raise StageError(
                        f"The server of {application.name!r} at {server.url} ended unexpectedly. See its log."
                    )
        finally:
            server.stop()
        return 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
