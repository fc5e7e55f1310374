"""The completions endpoint: reads a request's body, runs it, and answers whole or as server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from stages.serving.answer import envelope
from stages.serving.errors import BadRequestError, DeadlineError, GenerationFailedError, error_body
from stages.serving.request import parse
from stages.serving.request_id import request_id
from stages.serving.service import Arguments, Run, Service

log = logging.getLogger(__name__)

T = TypeVar("T")


async def complete(service: Service, request: Request) -> Response:
    """Answer a request to /v1/completions. A client that disconnects cancels its sequences.

    Raises BadRequestError, OverloadedError, ClosedError, GenerationFailedError, DeadlineError and ClientDisconnect.
    """
    arrived, name = time.monotonic(), request_id(request.scope)
    completion = parse(await _body(request, service.settings))
    run = Run(service, completion, await service.choices(completion), name, arrived)
    head = envelope(service.settings.model_name)
    if completion.stream:
        return _EventStream(_stream(run, head, name), run.close)
    try:
        answer = await _unless_disconnected(request, _collect(run))
    finally:
        run.close()
    return JSONResponse(head | answer)


def failure(error: GenerationFailedError | DeadlineError, settings: Arguments, name: str) -> tuple[str, int]:
    """The answer to the client of request `name`: a message and an HTTP status. Writes it to the log as well."""
    if isinstance(error, DeadlineError):
        message, status = f"the request was not answered within {settings.request_timeout_s:g} seconds", 504
    else:
        message, status = f"the generation failed; the server's log has the reason under request {name}", 500
    log.error("request %s: %s", name, message)
    return message, status


async def _body(request: Request, settings: Arguments) -> bytes:
    """The body of a request, bounded in size and time. Raises BadRequestError."""
    limit = settings.max_body_bytes
    too_large = BadRequestError(f"the body is larger than {limit} bytes", status=413)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise BadRequestError("expected a body with content-type application/json", status=415)
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise BadRequestError(
            f"the body did not arrive within {settings.body_timeout_s:g} seconds", status=408
        ) from None
    return bytes(body)


class _EventStream(StreamingResponse):
    """Server-sent events. `close` is called when the stream ends for any reason."""

    def __init__(self, content: AsyncIterator[str], close: Callable[[], None]) -> None:
        super().__init__(content, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


async def _collect(run: Run) -> dict[str, Any]:
    async for batch in run.batches():
        for choice, event in batch:
            choice.take(event)
    return {"choices": [choice.whole() for choice in run.choices], "usage": run.usage()}


async def _stream(run: Run, head: Mapping[str, Any], name: str) -> AsyncIterator[str]:
    def data(value: Mapping[str, Any]) -> str:
        return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"

    try:
        async for batch in run.batches():
            yield "".join(data({**head, "choices": [choice.take(event)]}) for choice, event in batch)
        if run.request.stream_options.include_usage:
            yield data({**head, "choices": [], "usage": run.usage()})
    except (GenerationFailedError, DeadlineError) as error:
        run.close()
        yield data(error_body(*failure(error, run.service.settings, name)))
    yield "data: [DONE]\n\n"


async def _unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Cancels it and raises ClientDisconnect if the client disconnects first."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
