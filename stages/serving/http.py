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
from stages.serving.completions import GENERATION_FAILED, complete
from stages.serving.errors import ERROR_SCHEMA, BadRequestError, GenerationFailedError, error_body
from stages.serving.metrics import CONTENT_TYPE
from stages.serving.request import request_schema
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
        return refuse(f"the server already runs and queues {service.engine.capacity} sequences: retry later", 429)

    @app.exception_handler(ClosedError)
    async def closed(_: Request, __: ClosedError) -> Response:
        return refuse("the server is shutting down" if service.engine.alive else "the engine has stopped", 503)

    @app.exception_handler(GenerationFailedError)
    async def failed(_: Request, __: GenerationFailedError) -> Response:
        return refuse(GENERATION_FAILED, 500)

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
    @app.get("/health")
    async def health() -> Response:
        if not service.engine.alive:
            return JSONResponse(error_body("the engine has stopped", 503), 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(service.metrics.render(), headers={"content-type": CONTENT_TYPE})
