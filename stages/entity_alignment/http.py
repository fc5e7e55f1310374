"""The HTTP application that aligns entities: POST /v1/align.

Request: {"entities": ["..."], "from": "left", "k": 10}. Answer: for each entity its k best candidates in the other
graph under CSLS, with the weights that each of its modalities had. Entities that the graph lacks are refused, all at
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from stages.csls import Array, nearest
from stages.entity_alignment.alignment import EntityAlignment
from stages.entity_alignment.graphs import SIDES
from stages.json_endpoint import RefusedError, json_application, json_body, parsed, similar_names

BODY_LIMIT_BYTES = 16 << 20
UNKNOWN_LIMIT = 16  # unknown entities of one request that get spellings


class AlignRequest(BaseModel):
    """The body of POST /v1/align."""

    model_config = ConfigDict(extra="forbid", strict=True)

    entities: list[Annotated[str, Field(min_length=1, max_length=2000)]] = Field(min_length=1, max_length=10_000)
    from_: Literal["left", "right"] = Field(default="left", alias="from")
    k: int = Field(default=10, ge=1, le=100)


@dataclass(frozen=True)
class Side:
    """One graph."""

    entities: list[str]
    labels: list[str]
    index: Mapping[str, int]
    vectors: Array
    weights: Array
    densities: Array


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
                unknown={name: similar_names(name, side.entities) for name in unknown[:UNKNOWN_LIMIT]},
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
                tensors[side].numpy(),
                tensors[f"{side}_weights"].numpy(),
                tensors[f"{side}_densities"].numpy(),
            )
            for side in SIDES
        },
    )


def application(aligner: Aligner) -> FastAPI:
    """The routes: POST /v1/align, GET /health."""
    app = json_application("bloomline entities")
    schema = {"application/json": {"schema": AlignRequest.model_json_schema()}}

    @app.post("/v1/align", openapi_extra={"requestBody": {"required": True, "content": schema}})
    async def align(request: Request) -> Response:
        wanted = parsed(await json_body(request, BODY_LIMIT_BYTES), AlignRequest)
        found = await asyncio.to_thread(aligner.align, wanted.entities, wanted.from_, wanted.k)
        return JSONResponse({"from": wanted.from_, "alignments": found})

    return app
