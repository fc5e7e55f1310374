"""The port of a server: refused with the process that holds it, before anything else happens."""

from __future__ import annotations

import os
import socket

import psutil
import pytest

from cluster import inline_serve, serve_port
from cluster.base import ClusterError
from cluster.network import free_port
from tests.cluster.test_serve_foreground import APPLICATION


@pytest.fixture
def taken() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


def test_the_holder_of_a_port_is_named(taken: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    port = taken.getsockname()[1]
    with taken:
        with pytest.raises(ClusterError, match=rf"^port: {port} is taken by process {os.getpid()} \(.+\); expected"):
            serve_port.expect_free(port)
        with pytest.raises(ClusterError, match="is taken"):
            inline_serve.start(APPLICATION, port=port)
        monkeypatch.setattr(psutil, "net_connections", lambda kind: [])  # of other users, nothing is known
        with pytest.raises(ClusterError, match=rf"{port} is taken by a process of another user"):
            serve_port.expect_free(port)
    serve_port.expect_free(port)


def test_a_server_listens_on_the_port_that_was_asked_for() -> None:
    port = free_port()
    served = inline_serve.start(APPLICATION, port=port)
    try:
        assert served.url == f"http://127.0.0.1:{port}"
        with pytest.raises(ClusterError, match=f"{port} is taken by process {served.process.pid} "):
            serve_port.expect_free(port)
    finally:
        served.stop()
