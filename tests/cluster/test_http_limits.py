"""Clients that send too much, too slowly, or under a foreign name, against a real server without Ray."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import httpx
import psutil
import pytest

from cluster import inline_serve
from cluster.config import HttpLimits
from cluster.http_limits import HeaderChecks
from cluster.inline_serve import ServedProcess
from tests.cluster.applications import LARGE_BYTES
from tests.cluster.test_inline_serve import APPLICATION
from tests.cluster.test_serve_proxy import ask

LIMITS = HttpLimits(
    connection_limit=20,
    header_limit_bytes=4096,
    header_count_limit=30,
    header_timeout_s=0.5,
    body_limit_bytes=100_000,
    body_timeout_s=0.5,
    send_timeout_s=0.5,
)
MEMORY_BYTES = 64 << 20  # that clients together may make the server take
HEAD = b"POST /length HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[ServedProcess]:
    served = inline_serve.start(APPLICATION, LIMITS)
    yield served
    served.stop()


def connect(server: ServedProcess) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def answer(client: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    received = b""
    try:
        while data := client.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def send(server: ServedProcess, *parts: bytes) -> bytes:
    """The answer to bytes that are sent as far as the server takes them."""
    with closing(connect(server)) as client:
        try:
            for part in parts:
                client.sendall(part)
        except OSError:
            pass
        return answer(client)


def status(received: bytes) -> int:
    head, _, body = received.partition(b"\r\n\r\n")
    assert json.loads(body)["error"]["message"]
    assert b"connection: close" in head
    return int(head.split()[1])


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([HEAD + b"a: " + b"x" * 5000], 431),
        ([HEAD + b"a: " + b"x" * 5000 + b"\r\n\r\n"], 431),
        ([HEAD + b"a: " + b"x" * 4090 + b"\r\n\r\n"], 431),  # with its end in one piece
        ([HEAD, *[b"a: b\r\n"] * 31, b"\r\n"], 431),
        ([HEAD, *[b"a: b\r\n"] * 100_000], 431),
        ([b"GET /" + b"x" * 5000], 431),
        ([HEAD + b"content-length: 100001\r\n\r\n"], 413),
        ([HEAD + b"content-length: " + b"9" * 19 + b"\r\n\r\n"], 413),
        ([HEAD + b"transfer-encoding: chunked\r\n\r\n", *[b"1000\r\n" + b"x" * 4096 + b"\r\n"] * 100], 413),
        ([b"nothing that is HTTP\r\n\r\n"], 400),
        ([HEAD], 408),
        ([HEAD + b"content-length: 10\r\n\r\n12345"], 408),
    ],
)
def test_what_is_too_large_or_too_late_is_refused(server: ServedProcess, parts: list[bytes], expected: int) -> None:
    assert status(send(server, *parts)) == expected


@pytest.mark.parametrize(("start", "expected"), [(HEAD, 408), (HEAD + b"content-length: 9999\r\n\r\n", 408)])
def test_more_bytes_do_not_move_the_deadline(server: ServedProcess, start: bytes, expected: int) -> None:
    with closing(connect(server)) as client:
        client.sendall(start)
        client.settimeout(0.1)
        received = b""
        while not received:  # a byte every 0.1 s
            client.sendall(b"x")
            try:
                received = client.recv(65536)
            except TimeoutError:
                continue
    assert status(received) == expected


def test_a_connection_that_asks_nothing_is_closed(server: ServedProcess) -> None:
    assert send(server) == b""


def test_connections_above_the_limit_get_a_503_and_the_others_are_served(server: ServedProcess) -> None:
    with ExitStack() as held:
        waiting = [held.enter_context(closing(connect(server))) for _ in range(LIMITS.connection_limit)]
        refused = held.enter_context(closing(connect(server)))
        assert status(received := answer(refused)) == 503
        assert b"retry-after: 1" in received
        waiting[0].sendall(b"GET /greeting HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in answer(waiting[0])
        for one in waiting[1:]:
            assert answer(one) == b""
    assert httpx.get(f"{server.url}/greeting").status_code == 200


def test_a_client_that_does_not_read_its_answer_is_disconnected(server: ServedProcess) -> None:
    with closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, _, port = server.url.removeprefix("http://").partition(":")
        client.connect((host, int(port)))
        client.settimeout(20)
        client.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        process = psutil.Process(server.process.pid)
        _, gone = client.getsockname()
        deadline = time.monotonic() + 60
        while any(one.raddr and one.raddr.port == gone for one in process.net_connections("tcp")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert len(answer(client)) < LARGE_BYTES


def test_many_clients_together_take_little_memory(server: ServedProcess) -> None:
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with ExitStack() as held:
        for number in range(100):
            client = held.enter_context(closing(connect(server)))
            try:
                client.sendall(HEAD + (b"a: " + b"x" * 200_000 if number % 2 else b""))
            except OSError:
                continue
    pipelined = b"GET /greeting HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5_000
    send(server, pipelined)
    send(server, HEAD, b"a: b\r\n" * 200_000)
    assert process.memory_info().rss - before < MEMORY_BYTES
    assert httpx.get(f"{server.url}/greeting").status_code == 200


def test_usual_clients_notice_nothing(server: ServedProcess) -> None:
    with httpx.Client(base_url=server.url) as client:
        for size in (0, 10, 99_999):
            assert client.post("/length", content=b"x" * size).json() == size
        parts = (b"x" * 1000 for _ in range(50))
        assert client.post("/length", content=parts).json() == 50_000
        pipelined = b"GET /greeting HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3
        last = b"GET /greeting HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert send(server, pipelined + last).count(b"200 OK") == 4


async def _said(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"said"})


def at(address: str, host: str | None) -> Any:
    """An application to which requests arrive at an address of this machine, with a Host header."""
    checks = HeaderChecks(_said, HttpLimits(host_names=("Model.example", "gateway")))

    async def arrived(scope: Any, receive: Any, send: Any) -> None:
        headers = [] if host is None else [(b"host", host.encode())]
        await checks({**scope, "server": (address, 8000), "headers": headers}, receive, send)

    return arrived


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "127.8.8.8"])
def test_on_the_loopback_interface_only_known_hosts_are_accepted(address: str) -> None:
    for host in ("localhost", "LOCALHOST:80", "127.0.0.1:8000", "[::1]:8000", "[::1]", "model.example", "gateway:1"):
        assert ask(at(address, host))[0] == 200, host
    evil = (None, "", "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io", "::1")
    for foreign in (*evil, "localhost:80@evil", "localhost, evil", "[::2]", "localhost\n"):
        found, _, body = ask(at(address, foreign))
        assert (found, json.loads(body)["error"]["type"]) == (421, "invalid_request_error"), foreign


def test_elsewhere_a_gateway_decides_about_hosts() -> None:
    assert ask(at("10.0.0.5", "any.example"))[0] == 200


def test_a_page_of_a_foreign_name_is_refused_by_the_server(server: ServedProcess) -> None:
    assert httpx.get(f"{server.url}/greeting", headers={"host": "evil.example"}).status_code == 421
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    with closing(connect(server)) as client:
        client.sendall(b"GET /socket HTTP/1.1\r\nHost: evil.example\r\n" + upgrade + key)
        assert b" 101 " not in client.recv(65536).partition(b"\r\n")[0]
