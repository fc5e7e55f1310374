"""What both servers share: finding an application's factory, waiting for an answer, and serving in the foreground."""

from __future__ import annotations

import http.client
import importlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol
from urllib.parse import urlsplit

from stages.base import Application, StageError

LOOPBACK = "127.0.0.1"


class Server(Protocol):
    """A running server; satisfies `stages.base.Served`."""

    url: str

    def running(self) -> bool:
        """False once the server is gone for good."""

    def stop(self) -> None:
        """Take no more requests, finish those that are being answered, and end."""


def make(factory: str, arguments: Any) -> Any:
    """The ASGI application that the factory ("module:function") makes."""
    module, _, function = factory.partition(":")
    return getattr(importlib.import_module(module), function)(arguments)


def free_port() -> int:
    """A port of the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def answers(url: str, timeout_s: float = 5.0) -> bool:
    """Whether something answers HTTP at `url`, be it with an error of its own (but not with a server's 5xx)."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or LOOPBACK, parts.port, timeout=timeout_s)
    try:
        connection.request("GET", f"{parts.path}/health")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def serve_foreground(
    start: Callable[[Application], Server], application: Application, announce: Callable[[str], None]
) -> int:
    """Serve until SIGINT or SIGTERM, finish the requests that are being answered, and return the exit code 0.

    `announce` is called with the URL once it answers. A second signal ends at once (KeyboardInterrupt). Raises
    StageError if the server could not be started, or ended by itself. Call it in the main thread.
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
            announce(server.url)
            while not asked.wait(1.0):
                if not server.running():
                    raise StageError(f"the server of {application.name!r} at {server.url} ended by itself: see its log")
        finally:
            server.stop()
        return 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def wait_until_answers(url: str, running: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until `url` answers; False if the server ended, or the time was up, before."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and running():
        if answers(url):
            return True
        time.sleep(0.05)
    return False


def python_path() -> str:
    """PYTHONPATH with which a child process finds the modules that this one finds."""
    import sys

    return os.pathsep.join(path or os.getcwd() for path in sys.path)
