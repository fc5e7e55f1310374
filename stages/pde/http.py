"""The HTTP application that predicts with a posterior: POST /v1/predict.

Request: {"t": [1.0, 2.0], "x": [0.5, 0.5]}, a list for each coordinate. Answer: for each component the mean and the 95
% band of its value at each point, and the posterior of every parameter. Points outside the observed range are refused.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from stages.pde.posterior import Posterior

BODY_LIMIT_BYTES = 1 << 20
BODY_TIMEOUT_S = 30.0
POINTS_LIMIT = 10_000
MARGIN = 1e-9  # of a range, for rounding


class RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def create(arguments: Mapping[str, Any]) -> FastAPI:
    """The application that serves the Posterior at the path `arguments["posterior"]`."""
    posterior = Posterior(Path(arguments["posterior"]))
    posterior.check()
    app = FastAPI(title="bloomline differential equations", docs_url=None, redoc_url=None)

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return JSONResponse({"error": {"message": str(error)}}, error.status)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}"[:500]
        return JSONResponse({"error": {"message": message}}, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def disconnected(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it

    @app.post("/v1/predict")
    async def predict(request: Request) -> Response:
        points = parsed(posterior, await _body(request))
        facts = posterior.facts
        components = await asyncio.to_thread(
            lambda: {name: posterior.predict(name, points).model_dump() for name in facts.equation.components}
        )
        parameters = {
            name: one.model_dump(include={"mean", "sd", "low", "median", "high", "identified"})
            for name, one in facts.parameters.items()
        }
        return JSONResponse({"components": components, "parameters": parameters})

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def parsed(posterior: Posterior, body: bytes) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The points of a request [n, coordinates]. Raises RefusedError."""
    names = posterior.facts.equation.coordinates
    expected = "{" + ", ".join(f'"{name}": [numbers]' for name in names) + "}"
    try:
        found = json.loads(body)
    except ValueError:
        raise RefusedError(400, f"the body is not JSON; expected {expected}") from None
    if not isinstance(found, dict) or set(found) != set(names):
        raise RefusedError(400, f"expected {expected}")
    for name, (low, high) in zip(names, posterior.facts.ranges, strict=True):
        values = found[name]
        if not isinstance(values, list) or not 0 < len(values) <= POINTS_LIMIT:
            raise RefusedError(400, f"{name}: expected a list of 1 to {POINTS_LIMIT} numbers")
        for place, value in enumerate(values):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise RefusedError(400, f"{name}[{place}]: expected a finite number")
            slack = MARGIN * (high - low)
            if not low - slack <= value <= high + slack:
                raise RefusedError(400, f"{name}[{place}] is {value:g}, outside the range {low:g} to {high:g}")
    if len({len(found[name]) for name in names}) > 1:
        raise RefusedError(400, f"{', '.join(names)} have different lengths")
    return np.array([found[name] for name in names], np.float64).T


async def _body(request: Request) -> bytes:
    """The body of a request, bounded in size and time. Raises RefusedError."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(415, "expected a body of content-type application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_LIMIT_BYTES:
                    raise RefusedError(413, f"the body is larger than {BODY_LIMIT_BYTES} bytes")
    except TimeoutError:
        raise RefusedError(408, "the body did not arrive in time") from None
    return bytes(body)
