"""What makes Ray Serve's HTTP proxy one of ours: limits on its clients, and its own answers in the shape of OpenAI's
errors.

A proxy loads `middlewares` if the environment of its process says so (`ENVIRONMENT`). Without it, its clients have no
limits and Ray answers in plain text: 404 while an application is drained, 429 if all replicas are full, and 500 if a
replica was killed.
"""

from __future__ import annotations

import uuid
from typing import Any

from cluster.asgi import refuse
from cluster.http_limits import HeaderChecks

ENVIRONMENT = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "cluster.serve_proxy:middlewares",
    # A replica that does not answer health checks is replaced at once: it would not answer the request to drain either.
    "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
}
REPLICA_HEADER = b"x-replica"  # in every answer of a replica: its name
REQUEST_ID_HEADER = b"x-request-id"
REPLAY_BYTES = 4 << 20  # of a body that can be sent to a second replica
OWN_STATUSES = (404, 408, 429, 503)  # with which Ray answers by itself


def middlewares() -> list[Any]:
    """What Ray Serve puts around its HTTP proxy, the outermost last.

    Ray calls this just before it starts the server of the proxy, uvicorn. Ray chooses the implementation of HTTP by the
    name "auto" and has no option for another one: here that name gets the one that bounds its clients.
    """
    from starlette.middleware import Middleware
    from uvicorn.config import HTTP_PROTOCOLS

    HTTP_PROTOCOLS["auto"] = "cluster.http_protocol:BoundedProtocol"
    return [Middleware(ProxyAnswers), Middleware(HeaderChecks)]


class ProxyAnswers:
    """Puts Ray's own errors into OpenAI's shape, and sends a request once more if its replica was lost before it
    answered."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/-/"):  # Ray's own health and routes
            await self._app(scope, receive, send)
            return
        name = dict(scope["headers"]).get(REQUEST_ID_HEADER)
        if name is None:
            name = uuid.uuid4().hex.encode()
            scope = {**scope, "headers": [*scope["headers"], (REQUEST_ID_HEADER, name)]}
        attempt = _Attempt(receive, send, name)
        for _ in range(2):
            await attempt.make(self._app, scope)
            if attempt.status or attempt.gone or not attempt.replayable:
                break
        if attempt.answered or attempt.gone:
            return
        status, message = _explained(attempt.status, scope["path"])
        await refuse(send, status, message, [(REQUEST_ID_HEADER, name)])


class _Attempt:
    """One request on its way to replicas. Keeps its body, to send it once more."""

    def __init__(self, receive: Any, send: Any, name: bytes) -> None:
        self._receive, self._send, self._name = receive, send, name
        self._body: list[Any] = []
        self._replayed = 0
        self._bytes = 0
        self.status = 0  # of the answer, or of Ray's own in its place
        self.answered = False  # by a replica, at least in part
        self.gone = False  # the client has disconnected

    @property
    def replayable(self) -> bool:
        return self._bytes <= REPLAY_BYTES

    async def make(self, app: Any, scope: Any) -> None:
        """Send the request. Afterwards, `status` is 0 if its replica was lost before it answered."""
        self._replayed = 0
        await app({**scope, "headers": list(scope["headers"])}, self._next, self._forward)

    async def _next(self) -> Any:
        if self._replayed < len(self._body):
            self._replayed += 1
            return self._body[self._replayed - 1]
        message = await self._receive()
        self.gone = self.gone or message["type"] == "http.disconnect"
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            if self.replayable:
                self._body.append(message)
                self._replayed += 1
            else:
                self._body.clear()
        return message

    async def _forward(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [(name.lower(), value) for name, value in message["headers"]]
            self.answered = self.status not in OWN_STATUSES or REPLICA_HEADER in dict(headers)
            # The application and Ray both add the id of the request.
            headers = [(name, value) for name, value in headers if name != REQUEST_ID_HEADER]
            message = {**message, "headers": [*headers, (REQUEST_ID_HEADER, self._name)]}
        if self.answered:
            await self._send(message)


def _explained(status: int, path: str) -> tuple[int, str]:
    """The status and message in place of one of Ray's own errors; 0: none was sent."""
    if status == 404:  # the application is being stopped, or has not started
        return 503, f"no application serves {path[:200]!r} at the moment: retry later"
    if status == 408:
        return 504, "the request was not answered in time"
    if status == 429:
        return 429, "all replicas are busy: retry later"
    return 503, "no replica is available: retry later" if status else "the replica was lost: retry later"
