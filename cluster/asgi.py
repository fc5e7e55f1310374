"""ASGI applications: creating one from its factory, and sending it a request within this process."""

from __future__ import annotations

import difflib
import importlib
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
