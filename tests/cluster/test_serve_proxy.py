"""What Ray's proxy answers in place of an application, with a proxy that is only acted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from cluster.asgi import Gate
from cluster.serve_proxy import REPLAY_BYTES, REPLICA_HEADER, ProxyAnswers
from stages.serving.errors import error_body

TEXT = (b"content-type", b"text/plain; charset=utf-8")


class Proxy:
    """Answers each request with the next of `statuses`; None: without an answer, as if the replica was killed."""

    def __init__(self, statuses: Sequence[int | None], *, by_replica: bool = False) -> None:
        self.statuses, self.by_replica = list(statuses), by_replica
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.bodies.append(body)
        if (status := self.statuses.pop(0)) is not None:
            headers = [TEXT, (b"X-Request-ID", b"twice"), (b"x-request-id", b"twice")]
            headers += [(REPLICA_HEADER, b"a")] if self.by_replica else []
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"said"})


def ask(
    app: Any, path: str = "/v1/completions", parts: Sequence[bytes] = (b"one", b"two")
) -> tuple[Any, dict[str, str], bytes]:
    """The status (None: no answer), headers and body of a POST."""
    sent: list[Any] = []
    left = [
        {"type": "http.request", "body": one, "more_body": place < len(parts)} for place, one in enumerate(parts, 1)
    ]

    async def receive() -> Any:
        return left.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": [(b"x-request-id", b"mine")]}
    asyncio.run(app(scope, receive, send))
    if not sent:
        return None, {}, b""
    names = [name for name, _ in sent[0]["headers"]]
    assert len(names) == len(set(names))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(one.get("body", b"") for one in sent[1:])


@pytest.mark.parametrize(("given", "expected"), [(404, 503), (408, 504), (429, 429), (503, 503)])
def test_rays_own_errors_are_in_openais_shape(given: int, expected: int) -> None:
    status, headers, body = ask(ProxyAnswers(Proxy([given])))
    error = json.loads(body)["error"]
    assert (status, headers["x-request-id"]) == (expected, "mine")
    assert ("retry-after" in headers) == (expected in (429, 503))
    assert {"error": error} == error_body(error["message"], expected)


@pytest.mark.parametrize("status", [200, 404, 429, 500, 503])
def test_answers_of_a_replica_stay_as_they_are(status: int) -> None:
    proxy = Proxy([status], by_replica=True)
    assert ask(ProxyAnswers(proxy))[0::2] == (status, b"said")
    assert proxy.bodies == [b"onetwo"]


def test_a_request_whose_replica_was_lost_is_sent_once_more() -> None:
    proxy = Proxy([None, 200], by_replica=True)
    assert ask(ProxyAnswers(proxy))[0] == 200
    assert proxy.bodies == [b"onetwo"] * 2


def test_a_request_that_loses_two_replicas_is_answered_with_503() -> None:
    status, headers, body = ask(ProxyAnswers(Proxy([None, None])))
    assert (status, "retry-after" in headers) == (503, True)
    assert json.loads(body)["error"]["message"] == "the replica was lost: retry later"


def test_a_body_that_is_too_large_to_keep_is_not_sent_again() -> None:
    proxy = Proxy([None, 200])
    assert ask(ProxyAnswers(proxy), parts=[b"x" * REPLAY_BYTES, b"x"])[0] == 503
    assert len(proxy.bodies) == 1


def test_rays_own_paths_are_left_alone() -> None:
    assert ask(ProxyAnswers(Proxy([503])), "/-/healthz")[0::2] == (503, b"said")


def test_a_closed_gate_refuses_what_comes_and_lets_finish_what_is_inside() -> None:
    async def scenario() -> None:
        inside, leave = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            inside.set()
            await leave.wait()

        gate = Gate(app)
        first = asyncio.create_task(gate({"type": "http"}, None, None))
        await inside.wait()
        gate.closed = True
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await gate({"type": "http"}, None, send)
        assert (sent[0]["status"], gate.requests) == (503, 1)
        leave.set()
        await first
        assert gate.requests == 0

    asyncio.run(scenario())
