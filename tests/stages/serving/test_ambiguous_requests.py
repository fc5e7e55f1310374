"""A request whose end two servers could see in different places is refused, and its connection closed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from stages.serving.http import application
from tests.stages.serving.support import scripted_service, serving

SECOND = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"  # what an attacker hides in the body of a first one

AMBIGUOUS = {
    "two lengths": b"content-length: 5\r\ncontent-length: 0\r\n\r\n",
    "list of lengths": b"content-length: 5, 0\r\n\r\n",
    "negative": b"content-length: -1\r\n\r\n",
    "signed": b"content-length: +0\r\n\r\n",
    "space before the colon": b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "unknown encoding": b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked in between": b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "size of a chunk": b"transfer-encoding: chunked\r\n\r\n-0\r\n\r\n",
    "folded": b"content-length:\r\n 0\r\nx\r\n\r\n",
    "line end in a name": b"x\ny: 1\r\nz z: 1\r\n\r\n",
}


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    service, _ = scripted_service(slots=1)
    with serving(application(service)) as url:
        parts = urlsplit(url)
        yield parts.hostname or "", parts.port or 0


@pytest.mark.parametrize("how", AMBIGUOUS)
def test_an_ambiguous_request_is_refused_and_nothing_after_it_answered(address: tuple[str, int], how: str) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(head + AMBIGUOUS[how] + SECOND)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501"))
    assert b'"data"' not in answer  # the list of models
