"""ASGI applications: creating one from its factory, and sending it a request within this process."""

from __future__ import annotations

import importlib
from typing import Any


def create_application(factory: str, arguments: Any) -> Any:
    """Call the factory ("module:function") with `arguments` and return the ASGI application that it creates."""
    module, _, function = factory.partition(":")
    return getattr(importlib.import_module(module), function)(arguments)


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
