"""Serving in the foreground until a signal, after which the requests in flight are finished."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Callable
from types import FrameType

from cluster import stop_signals
from cluster.terminal_text import clean_line, say
from stages.base import Application, ExampleRequest, Served, StageError


def serve(
    start: Callable[[Application], Served], application: Application, example: ExampleRequest | None = None
) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP, finish the requests in flight, and return the exit code 0.

    Prints the address once it answers, and a command that sends the `example`. A second signal raises
    KeyboardInterrupt. Raises StageError if the server could not be started, or ended without a signal. Must be called
    in the main thread.
    """
    stop_requested = threading.Event()
    ready = False

    def request_stop(_: int, __: FrameType | None) -> None:
        if stop_requested.is_set() or not ready:
            raise KeyboardInterrupt
        stop_requested.set()

    with stop_signals.handled(request_stop):
        try:
            server = start(application)
        except KeyboardInterrupt:
            return 0
        ready = True
        try:
            hint = f" Try:\n  {clean_line(curl(server.url, example))}" if example else ""
            say(f"\n{clean_line(application.name)} is served at {server.url} (Ctrl-C ends it).{hint}", flush=True)
            while not stop_requested.wait(1.0):
                if not server.running():
                    raise StageError(
                        f"The server of {application.name!r} at {server.url} ended unexpectedly. {server.log()}"
                    )
        finally:
            server.stop()
        return 0


def curl(url: str, request: ExampleRequest) -> str:
    """The command for a shell that sends a request to the application at `url`."""
    has_body = request.body is not None
    method = [] if request.method == ("POST" if has_body else "GET") else ["-X", request.method]
    body = ["-H", "content-type: application/json", "-d", json.dumps(request.body)] if has_body else []
    return shlex.join(["curl", *method, url + request.path, *body])
