"""The HTTP application that aligns entities: POST /v1/align.

Request: {"entities": ["..."], "from": "left", "k": 10}. Answer: for each entity its k best candidates in the other
graph under CSLS, with the weights that each of its modalities had. Entities that the graph lacks are refused, all at
once.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from stages.entity_alignment.alignment import EntityAlignment
from stages.entity_alignment.graphs import SIDES
from stages.entity_alignment.ranking import nearest

if TYPE_CHECKING:
    from torch import Tensor

BODY_LIMIT_BYTES = 16 << 20
BODY_TIMEOUT_S = 30.0
SPELLINGS, SPELLING_ENTITIES = 3, 20_000  # among which similar spellings are looked for
UNKNOWN_LIMIT = 16  # unknown entities of one request that get spellings


class AlignRequest(BaseModel):
    """The body of POST /v1/align."""

    model_config = ConfigDict(extra="forbid", strict=True)

    entities: list[Annotated[str, Field(min_length=1, max_length=2000)]] = Field(min_length=1, max_length=10_000)
    from_: Literal["left", "right"] = Field(default="left", alias="from")
    k: int = Field(default=10, ge=1, le=100)


class RefusedError(Exception):
    """A request that is answered with an error: its status, and more for the body."""

    def __init__(self, status: int, message: str, **details: object) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, **details}}


@dataclass(frozen=True)
class Side:
    """One graph."""

    entities: list[str]
    labels: list[str]
    index: Mapping[str, int]
    vectors: Tensor
    weights: Tensor
    densities: Tensor


@dataclass(frozen=True)
class Aligner:
    """Both graphs, for lookups in either direction."""

    modalities: tuple[str, ...]
    sides: Mapping[str, Side]

    def align(self, entities: list[str], origin: str, count: int) -> list[dict[str, Any]]:
        """For each entity its candidates and the weights of its modalities. Raises RefusedError."""
        side, other = self.sides[origin], self.sides["right" if origin == "left" else "left"]
        unknown = [name for name in dict.fromkeys(entities) if name not in side.index]
        if unknown:
            raise RefusedError(
                404,
                f"{len(unknown)} of the entities are not in the {origin} graph",
                unknown={name: _spellings(name, side.entities) for name in unknown[:UNKNOWN_LIMIT]},
            )
        distinct = list(dict.fromkeys(entities))
        rows = [side.index[name] for name in distinct]
        places, scores = nearest(side.vectors[rows], other.vectors, side.densities[rows], other.densities, count)
        answers = {
            name: {
                "entity": name,
                "weights": dict(zip(self.modalities, weights, strict=True)),
                "candidates": [
                    {"entity": other.entities[place], "label": other.labels[place], "score": score}
                    for place, score in zip(*best, strict=True)
                ],
            }
            for name, weights, *best in zip(
                distinct, side.weights[rows].tolist(), places.tolist(), scores.tolist(), strict=True
            )
        }
        return [answers[name] for name in entities]


def create(arguments: Mapping[str, Any]) -> FastAPI:
    """The application that serves the EntityAlignment at the path `arguments["alignment"]`."""
    return application(load(EntityAlignment(Path(arguments["alignment"]))))


def load(alignment: EntityAlignment) -> Aligner:
    """An alignment in memory."""
    tensors, names = alignment.tensors(), alignment.names()
    return Aligner(
        alignment.facts.modalities,
        {
            side: Side(
                names[side],
                names[f"{side}_labels"],
                {name: place for place, name in enumerate(names[side])},
                tensors[side],
                tensors[f"{side}_weights"],
                tensors[f"{side}_densities"],
            )
            for side in SIDES
        },
    )


def application(aligner: Aligner) -> FastAPI:
    """The routes: POST /v1/align, GET /health."""
    app = FastAPI(title="bloomline entities", docs_url=None, redoc_url=None)
    schema = {"application/json": {"schema": AlignRequest.model_json_schema()}}

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return JSONResponse(error.body, error.status)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}"[:500]
        return JSONResponse({"error": {"message": message}}, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def disconnected(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it

    @app.post("/v1/align", openapi_extra={"requestBody": {"required": True, "content": schema}})
    async def align(request: Request) -> Response:
        wanted = _parsed(await _body(request))
        found = await asyncio.to_thread(aligner.align, wanted.entities, wanted.from_, wanted.k)
        return JSONResponse({"from": wanted.from_, "alignments": found})

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


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


def _parsed(body: bytes) -> AlignRequest:
    try:
        return AlignRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise RefusedError(400, f"{where}: {first['msg']}"[:500]) from None


def _spellings(name: str, entities: list[str]) -> list[str]:
    """The known entities that are spelt most like `name`."""
    similar = [known for known in entities[:SPELLING_ENTITIES] if abs(len(known) - len(name)) <= 2]
    return difflib.get_close_matches(name, similar, n=SPELLINGS, cutoff=0.5)
