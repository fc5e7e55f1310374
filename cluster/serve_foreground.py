"""Serving in the foreground: until a signal, and then to the end of what is being answered."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

from stages.base import Application, Served, StageError

EXAMPLE = """curl {}/v1/completions -H 'content-type: application/json' -d '{{"prompt": "def ", "max_tokens": 40}}'"""


def serve(start: Callable[[Application], Served], application: Application) -> int:
    """Serve until SIGINT or SIGTERM, finish the requests that are being answered, and return the exit code 0.

    Prints the address once it answers. A second signal ends at once (KeyboardInterrupt). Raises StageError if the
    server could not be started, or ended by itself. Call it in the main thread.
    """
    asked = threading.Event()
    ready = False

    def ask(_: int, __: FrameType | None) -> None:
        if asked.is_set() or not ready:
            raise KeyboardInterrupt
        asked.set()

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
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
            while not asked.wait(1.0):
                if not server.running():
                    raise StageError(f"the server of {application.name!r} at {server.url} ended by itself: see its log")
        finally:
            server.stop()
        return 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
