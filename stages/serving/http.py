"""The HTTP application that serves a Checkpoint: OpenAI's completions API, the list of models, health and metrics.

`create` is the factory that a server calls in each replica. Every invalid request is answered with a 4xx status and the
reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from stages.inference.engine import ClosedError, OverloadedError
from stages.serving.completions import complete, failure
from stages.serving.errors import ERROR_SCHEMA, BadRequestError, DeadlineError, GenerationFailedError, error_body
from stages.serving.metrics import CONTENT_TYPE
from stages.serving.request import request_schema
from stages.serving.request_id import RequestIds, request_id
from stages.serving.service import Arguments, Service

_REFUSED = {
    "description": "The request was refused or failed",
    "content": {"application/json": {"schema": ERROR_SCHEMA}},
}
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The completion, or its parts if it is streamed", "content": {"text/event-stream": {}}}
}


def create(arguments: Mapping[str, Any]) -> FastAPI:
    """The application that serves the Checkpoint of `arguments` (see `Arguments`). Loads the model."""
    return application(Service.load(Arguments.model_validate(dict(arguments))))


def application(service: Service) -> FastAPI:
    """The application of a service. When it shuts down, it closes the engine."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.engine.close)

    app = FastAPI(
        title="bloomline",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses={"4XX": _REFUSED, "5XX": _REFUSED},
    )
    app.add_middleware(RequestIds)
    _add_error_handlers(app, service)
    _add_completions(app, service)
    _add_models(app, service)
    _add_monitoring(app, service)
    return app


def _add_error_handlers(app: FastAPI, service: Service) -> None:
    """Answer exceptions with an error in OpenAI's shape, and count them."""

    def refuse(
        message: str,
        status: int,
        parameter: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> JSONResponse:
        service.metrics.rejected(status)
        if status in (429, 503):
            headers = {"retry-after": "1"}
        return JSONResponse(error_body(message, status, parameter, code), status, headers)

    @app.exception_handler(BadRequestError)
    async def bad_request(_: Request, error: BadRequestError) -> Response:
        return refuse(error.message, error.status, error.parameter, error.code)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}"[:500]
        return refuse(message, error.status_code, headers=error.headers)  # the headers include Allow of a 405

    @app.exception_handler(OverloadedError)
    async def overloaded(_: Request, __: OverloadedError) -> Response:
        return refuse(f"all {service.engine.capacity} places of the server are taken: retry later", 429)

    @app.exception_handler(ClosedError)
    async def closed(_: Request, __: ClosedError) -> Response:
        return refuse(_why_closed(service), 503)

    async def failed(request: Request, error: GenerationFailedError | DeadlineError) -> Response:
        return refuse(*failure(error, service.settings, request_id(request.scope)))

    for kind in (GenerationFailedError, DeadlineError):
        app.exception_handler(kind)(failed)

    @app.exception_handler(ClientDisconnect)
    async def disconnected(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody receives it


def _add_completions(app: FastAPI, service: Service) -> None:
    body = {"required": True, "content": {"application/json": {"schema": request_schema()}}}

    @app.post("/v1/completions", openapi_extra={"requestBody": body}, responses=_STREAMED)
    async def completions(request: Request) -> Response:
        return await complete(service, request)


def _add_models(app: FastAPI, service: Service) -> None:
    model = {
        "id": service.settings.model_name,
        "object": "model",
        "created": 0,
        "owned_by": "bloomline",
        "max_model_len": service.context_length,
    }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        if name != model["id"]:
            raise BadRequestError(f"the model {name[:200]!r} does not exist", status=404, code="model_not_found")
        return model


def _add_monitoring(app: FastAPI, service: Service) -> None:
    def status(healthy: bool) -> Response:
        if healthy:
            return JSONResponse({"status": "ok"})
        return JSONResponse(error_body(_why_closed(service), 503), 503, {"retry-after": "1"})

    @app.get("/health")
    async def health() -> Response:
        return status(service.engine.alive)

    @app.get("/ready")
    async def ready() -> Response:
        return status(service.engine.alive and not service.engine.closing)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(service.metrics.render(), headers={"content-type": CONTENT_TYPE})


def _why_closed(service: Service) -> str:
    engine = service.engine
    if engine.alive:
        return "the server is shutting down"
    stalled_s = engine.stalled_s
    return f"the engine has made no progress for {stalled_s:.0f} s" if stalled_s else "the engine has stopped"
