"""The id of each request, which its answer and the log name: the client's own, or a new one."""

from __future__ import annotations

import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stages.serving.errors import error_body

log = logging.getLogger(__name__)

HEADER = "x-request-id"
_ACCEPTED = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def request_id(scope: Scope) -> str:
    """The id of the request of `scope`."""
    found: str = scope["state"]["request_id"]
    return found


class RequestIds:
    """Gives every request its id, and every answer the header X-Request-Id.

    Answers HEAD as GET, without the body, and an unexpected exception with an error in OpenAI's shape.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(HEADER, "")
        name = sent if _ACCEPTED.fullmatch(sent) else uuid.uuid4().hex
        is_head = scope["method"] == "HEAD"
        scope = {**scope, "method": "GET" if is_head else scope["method"]}
        scope["state"] = {**scope.get("state", {}), "request_id": name}

        started = False

        async def send_named(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = name
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception:
            log.exception("request %s failed", name)
            if started:
                raise  # the connection is closed, which tells the client that the answer is not whole
            body = error_body(f"the server failed; its log has the reason under request {name}", 500)
            await JSONResponse(body, 500)(scope, receive, send_named)
