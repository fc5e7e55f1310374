"""The HTTP application that translates words with an alignment: POST /v1/translate.

Request: {"words": ["house"], "from": "en", "k": 5}. Answer: for each word its k best words of the other language under
CSLS. Words that the vocabulary lacks are refused, all of them at once, with the most similar known spellings.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from stages.word_alignment.alignment import WordAlignment
from stages.word_alignment.linear import mapped
from stages.word_alignment.neighbours import nearest

if TYPE_CHECKING:
    from stages.word_alignment.linear import Array

BODY_LIMIT_BYTES = 1 << 18
BODY_TIMEOUT_S = 30.0
SPELLING_WORDS = 20_000  # the most frequent words, among which similar spellings are looked for
SPELLINGS = 3
UNKNOWN_LIMIT = 16  # unknown words of one request that get spellings


class TranslateRequest(BaseModel):
    """The body of POST /v1/translate."""

    model_config = ConfigDict(extra="forbid", strict=True)

    words: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(min_length=1, max_length=256)
    from_: str = Field(alias="from", max_length=32)
    k: int = Field(default=5, ge=1, le=100)


class RefusedError(Exception):
    """A request that is answered with an error: its status, and more for the body."""

    def __init__(self, status: int, message: str, **details: object) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, **details}}


@dataclass(frozen=True)
class Side:
    """One language, in the space that both share."""

    words: list[str]
    index: Mapping[str, int]
    vectors: Array
    densities: Array


@dataclass(frozen=True)
class Translator:
    """Both languages by name, for lookups in either direction."""

    languages: tuple[str, str]
    sides: tuple[Side, Side]

    def translate(self, words: list[str], language: str, count: int) -> list[list[tuple[str, float]]]:
        """The `count` best words for each word, with their CSLS. Raises RefusedError."""
        if language not in self.languages:
            expected = " or ".join(map(repr, self.languages))
            raise RefusedError(400, f"from: {language!r} is not a language of this alignment; expected {expected}")
        place = self.languages.index(language)
        side, other = self.sides[place], self.sides[1 - place]
        unknown = [word for word in dict.fromkeys(words) if word not in side.index]
        if unknown:
            raise RefusedError(
                404,
                f"{len(unknown)} of the words are not in the vocabulary of {language}",
                unknown={word: _spellings(word, side.words) for word in unknown[:UNKNOWN_LIMIT]},
            )
        rows = [side.index[word] for word in words]
        found = nearest(side.vectors[rows], other.vectors, side.densities[rows], other.densities, count)
        return [
            [(other.words[index], float(score)) for index, score in zip(*row, strict=True)]
            for row in zip(*found, strict=True)
        ]


def create(arguments: Mapping[str, Any]) -> FastAPI:
    """The application that serves the WordAlignment at the path `arguments["alignment"]`."""
    return application(load(WordAlignment(Path(arguments["alignment"]))))


def load(alignment: WordAlignment) -> Translator:
    """An alignment in memory, the source's vectors mapped into the target's space."""
    tensors = alignment.tensors()
    (source_words, source), (target_words, target) = alignment.side("source"), alignment.side("target")

    def side(words: list[str], vectors: Array, densities: Array) -> Side:
        return Side(words, {word: place for place, word in enumerate(words)}, vectors, densities)

    return Translator(
        alignment.facts.languages,
        (
            side(source_words, mapped(source, tensors["mapping"]), tensors["source_densities"]),
            side(target_words, target, tensors["target_densities"]),
        ),
    )


def application(translator: Translator) -> FastAPI:
    """The routes: POST /v1/translate, GET /health."""
    app = FastAPI(title="bloomline words", docs_url=None, redoc_url=None)
    schema = {"application/json": {"schema": TranslateRequest.model_json_schema()}}

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

    @app.post("/v1/translate", openapi_extra={"requestBody": {"required": True, "content": schema}})
    async def translate(request: Request) -> Response:
        wanted = _parsed(await _body(request))
        found = await asyncio.to_thread(translator.translate, wanted.words, wanted.from_, wanted.k)
        target = translator.languages[1 - translator.languages.index(wanted.from_)]
        translations = [
            {"word": word, "translations": [{"word": one, "score": score} for one, score in best]}
            for word, best in zip(wanted.words, found, strict=True)
        ]
        return JSONResponse({"from": wanted.from_, "to": target, "translations": translations})

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


def _parsed(body: bytes) -> TranslateRequest:
    try:
        return TranslateRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise RefusedError(400, f"{where}: {first['msg']}"[:500]) from None


def _spellings(word: str, words: list[str]) -> list[str]:
    """The known words that are spelt most like `word`."""
    similar = [known for known in words[:SPELLING_WORDS] if abs(len(known) - len(word)) <= 2]
    return difflib.get_close_matches(word, similar, n=SPELLINGS, cutoff=0.5)
