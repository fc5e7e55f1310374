"""What answers at the address of a cluster, and is not its head."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest

from cluster.base import ClusterError
from cluster.config import RemoteCluster
from cluster.connection import Connection
from cluster.head_token import expect_accepted


@pytest.fixture(params=["a dashboard", "a client server"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "a dashboard":
        web = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{web.server_address[1]}"
        web.shutdown()
        web.server_close()
    else:
        server = grpc.server(futures.ThreadPoolExecutor(1))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


def test_another_port_than_the_heads_is_refused_at_once(address: str) -> None:
    began = time.monotonic()
    with pytest.raises(ClusterError, match=rf"cluster.address={address} is not the head .* usually HOST:6379"):
        Connection(RemoteCluster(address=address))
    assert time.monotonic() - began < 60  # Ray itself would try without an end


def test_a_head_that_does_not_answer_in_time_is_left_to_ray() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        expect_accepted(f"127.0.0.1:{silent.getsockname()[1]}", 0.2)
