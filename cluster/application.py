"""What both servers share: finding an application's factory, a port, and waiting for an answer."""

from __future__ import annotations

import http.client
import importlib
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"


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


async def status_of(app: Any, path: str) -> int:
    """The status with which an ASGI application answers a GET, asked within this process."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
    }
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)
    return statuses[0]


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
    return os.pathsep.join(path or os.getcwd() for path in sys.path)
