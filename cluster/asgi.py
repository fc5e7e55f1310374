"""ASGI applications: creating one from its factory, sending it a request within this process, and answers that a server
gives in place of its application."""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Sequence
from typing import Any

from stages.base import OWN_PACKAGES, StageError


def create_application(factory: str, arguments: Any) -> Any:
    """Call the factory ("module:function") with `arguments` and return the ASGI application that it creates."""
    module, _, function = factory.partition(":")
    return getattr(importlib.import_module(module), function)(arguments)


def check_factory(factory: str) -> None:
    """Raise StageError, in one line, if a user's factory cannot be imported.

    Called before a server is started. bloomline's own factories are not imported here, because they import torch.
    """
    module, _, function = factory.partition(":")
    if module.partition(".")[0] in OWN_PACKAGES:
        return
    try:
        found = vars(importlib.import_module(module))
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise StageError(f"The factory {factory!r} can't be imported: {reason}") from error
    if not callable(found.get(function)):
        known = [name for name, value in found.items() if callable(value)]
        hint = "".join(f" Did you mean {name!r}?" for name in difflib.get_close_matches(function, known, n=1))
        raise StageError(f"{module} has no {function!r}.{hint}")


async def status_of(app: Any, path: str) -> int:
    """The status with which an ASGI application answers `GET path`, requested within this process."""
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


RETRY_AFTER_S = 1


def refusal(status: int, message: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The headers and the body of an HTTP error, in the shape of OpenAI's errors. A 429 or 503 says when to try
    again."""
    kind = "server_error" if status >= 500 else "overloaded_error" if status == 429 else "invalid_request_error"
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}}).encode()
    retry = [(b"retry-after", str(RETRY_AFTER_S).encode())] if status in (429, 503) else []
    return [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *retry], body


async def refuse(send: Any, status: int, message: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """Answer a request with an HTTP error (see `refusal`)."""
    own, body = refusal(status, message)
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})


class Gate:
    """Counts the requests in an application. Once it is closed, those in it continue, and new ones get a 503."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.closed = False
        self.requests = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif self.closed:
            await refuse(send, 503, "the server is shutting down")
        else:
            self.requests += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self.requests -= 1
