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

from stages.json_endpoint import RefusedError, json_application, json_body
from stages.pde.posterior import Posterior

BODY_LIMIT_BYTES = 1 << 20
POINTS_LIMIT = 10_000
MARGIN = 1e-9  # of a range, for rounding


def create(arguments: Mapping[str, Any]) -> FastAPI:
    """The application that serves the Posterior at the path `arguments["posterior"]`."""
    posterior = Posterior(Path(arguments["posterior"]))
    posterior.check()
    app = json_application("bloomline differential equations")

    @app.post("/v1/predict")
    async def predict(request: Request) -> Response:
        points = parsed(posterior, await json_body(request, BODY_LIMIT_BYTES))
        facts = posterior.facts
        components = await asyncio.to_thread(
            lambda: {name: posterior.predict(name, points).model_dump() for name in facts.equation.components}
        )
        parameters = {
            name: one.model_dump(include={"mean", "sd", "low", "median", "high", "identified"})
            for name, one in facts.parameters.items()
        }
        return JSONResponse({"components": components, "parameters": parameters})

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
