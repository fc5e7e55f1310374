"""What the HTTP applications of the model-agnostic artifacts have in common: JSON in, JSON out, one form of error."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Sequence
from typing import TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

BODY_TIMEOUT_S = 30.0
MESSAGE_CHARACTERS = 500
SPELLINGS, SPELLING_NAMES = 3, 20_000  # similar names, and among how many they are looked for
Body = TypeVar("Body", bound=BaseModel)


class RefusedError(Exception):
    """A request that is answered with an error: its status, and more for the body."""

    def __init__(self, status: int, message: str, **details: object) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, **details}}


def json_application(title: str) -> FastAPI:
    """An application with GET /health, which answers every error with {"error": {"message": ...}}."""
    app = FastAPI(title=title, docs_url=None, redoc_url=None)

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return JSONResponse(error.body, error.status)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}"[:MESSAGE_CHARACTERS]
        return JSONResponse({"error": {"message": message}}, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def disconnected(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


async def json_body(request: Request, limit_bytes: int) -> bytes:
    """The body of a request, bounded in size and time. Raises RefusedError."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(415, "expected a body of content-type application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit_bytes:
                    raise RefusedError(413, f"the body is larger than {limit_bytes} bytes")
    except TimeoutError:
        raise RefusedError(408, "the body did not arrive in time") from None
    return bytes(body)


def parsed(body: bytes, model: type[Body]) -> Body:
    """The body as a `model`. Raises RefusedError with the field and what was expected."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise RefusedError(400, f"{where}: {first['msg']}"[:MESSAGE_CHARACTERS]) from None


def similar_names(name: str, known: Sequence[str]) -> list[str]:
    """Those of the first known names that are spelt most like `name`."""
    similar = [one for one in known[:SPELLING_NAMES] if abs(len(one) - len(name)) <= 2]
    return difflib.get_close_matches(name, similar, n=SPELLINGS, cutoff=0.5)
