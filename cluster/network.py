"""Addresses and ports: whether something answers there, found out within seconds.

Ray's own clients retry for a minute, or end the process, when nothing answers.
"""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from cluster.base import ClusterError
from stages.addresses import redact_url

LOOPBACK = "127.0.0.1"


def expect_listener(address: str, host: str, port: int, timeout_s: float, expected: str) -> None:
    """Raise ClusterError if `host:port` does not accept a connection.

    `address` is the address as configured and `expected` describes the address that was needed: both for the error.
    """
    try:
        socket.create_connection((host, port), timeout_s).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"Nothing answers at cluster.address={redact_url(address)} ({error}). "
            f"Expected {expected}, reachable from here."
        ) from error


def free_port() -> int:
    """A port of the loopback interface that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        port: int = listener.getsockname()[1]
        return port


def answers(url: str, timeout_s: float = 5.0) -> bool:
    """Whether `GET url/health` gets an HTTP response with a status below 500."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or LOOPBACK, parts.port, timeout=timeout_s)
    try:
        connection.request("GET", f"{parts.path}/health")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_until_answers(url: str, running: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until `url` answers. Returns False if the server stopped running or the time ran out first."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and running():
        if answers(url):
            return True
        time.sleep(0.05)
    return False
