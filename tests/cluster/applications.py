"""A small ASGI application for the tests of the servers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import StreamingResponse

LARGE_BYTES = 64 << 20


def create(arguments: Mapping[str, Any]) -> FastAPI:
    """`/greeting` returns the argument, `/slow` streams ten lines in a second, `/sicken` makes `/health` fail."""
    app = FastAPI()
    status = 200

    @app.get("/health")
    async def health() -> Response:
        return Response(status_code=status)

    @app.post("/sicken")
    async def sicken() -> int:
        nonlocal status
        status = 503
        return os.getpid()

    @app.get("/greeting")
    async def greeting() -> dict[str, Any]:
        return {"greeting": arguments["greeting"], "pid": os.getpid()}

    @app.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    @app.get("/large")
    async def large() -> Response:
        return Response(b"x" * LARGE_BYTES)

    @app.websocket("/socket")
    async def socket(connection: WebSocket) -> None:
        await connection.accept()

    @app.get("/slow-start")
    async def slow_start() -> dict[str, Any]:
        await asyncio.sleep(2)
        return {"pid": os.getpid()}

    @app.get("/slow")
    async def slow() -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            for index in range(10):
                yield f"{index}\n"
                await asyncio.sleep(0.1)

        return StreamingResponse(lines(), media_type="text/plain")

    return app


def liar(_: Mapping[str, Any]) -> FastAPI:
    """Reports that it is healthy, but serves another model than the requested one."""
    app = FastAPI()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"data": [{"id": "something else"}]}

    return app


def refuse(_: Mapping[str, Any]) -> FastAPI:
    raise RuntimeError("broken on purpose")
