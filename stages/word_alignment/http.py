"""The HTTP application that translates words with an alignment: POST /v1/translate.

Request: {"words": ["house"], "from": "en", "k": 5}. Answer: for each word its k best words of the other language under
CSLS. Words that the vocabulary lacks are refused, all of them at once, with the most similar known spellings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from stages.csls import nearest
from stages.json_endpoint import RefusedError, json_application, json_body, parsed, similar_names
from stages.word_alignment.alignment import WordAlignment
from stages.word_alignment.linear import mapped

if TYPE_CHECKING:
    from stages.word_alignment.linear import Array

BODY_LIMIT_BYTES = 1 << 18
UNKNOWN_LIMIT = 16  # unknown words of one request that get spellings


class TranslateRequest(BaseModel):
    """The body of POST /v1/translate."""

    model_config = ConfigDict(extra="forbid", strict=True)

    words: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(min_length=1, max_length=256)
    from_: str = Field(alias="from", max_length=32)
    k: int = Field(default=5, ge=1, le=100)


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
                unknown={word: similar_names(word, side.words) for word in unknown[:UNKNOWN_LIMIT]},
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
    app = json_application("bloomline words")
    schema = {"application/json": {"schema": TranslateRequest.model_json_schema()}}

    @app.post("/v1/translate", openapi_extra={"requestBody": {"required": True, "content": schema}})
    async def translate(request: Request) -> Response:
        wanted = parsed(await json_body(request, BODY_LIMIT_BYTES), TranslateRequest)
        found = await asyncio.to_thread(translator.translate, wanted.words, wanted.from_, wanted.k)
        target = translator.languages[1 - translator.languages.index(wanted.from_)]
        translations = [
            {"word": word, "translations": [{"word": one, "score": score} for one, score in best]}
            for word, best in zip(wanted.words, found, strict=True)
        ]
        return JSONResponse({"from": wanted.from_, "to": target, "translations": translations})

    return app
