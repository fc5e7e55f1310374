"""The shape of completion requests and answers: OpenAI's, and nothing that we would ignore.

A request is refused (`BadRequestError`) with the field, what is wrong with it and what was expected. A parameter of
OpenAI's API that this engine does not have is accepted only at the value that means "off".
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import Field, ValidationError, field_validator, model_validator

from stages.base import Config
from stages.inference.engine import Event
from stages.inference.sampling import Sampling, TokenLogprobs
from stages.inference.text import TextStream, Vocabulary

MAX_STOP_STRINGS = 16
MAX_STOP_CHARACTERS = 256
MAX_CHOICES = 128
MAX_LOGPROBS = 20

_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Text = Annotated[str, Field(strict=True)]
_Switch = Annotated[bool, Field(strict=True)]
_Token = Annotated[int, Field(ge=0)]
_Prompts = Field(min_length=1)
# Only told: pydantic would refuse a lone surrogate in its own words where it counts characters.
_Stop = Annotated[str, Field(strict=True, json_schema_extra={"minLength": 1, "maxLength": MAX_STOP_CHARACTERS})]

# Parameters of OpenAI's that this engine does not have, and the value that asks for nothing.
_OFF = {"frequency_penalty": 0, "presence_penalty": 0, "logit_bias": {}, "suffix": ""}


class BadRequestError(Exception):
    """A request that is refused: an HTTP status, a reason for people, the parameter, and OpenAI's code if any."""

    def __init__(self, message: str, *, status: int = 400, parameter: str | None = None, code: str | None = None):
        super().__init__(message)
        self.message, self.status, self.parameter, self.code = message, status, parameter, code


class StreamOptions(Config):
    include_usage: _Switch = False


class CompletionRequest(Config):
    """The body of a request to /v1/completions."""

    model: _Text | None = None  # None: the one that is served
    prompt: (
        str
        | Annotated[list[str], _Prompts]
        | Annotated[list[_Token], _Prompts]
        | Annotated[list[Annotated[list[_Token], _Prompts]], _Prompts]
    )
    max_tokens: int = Field(default=16, ge=0, strict=True)
    temperature: _Number = Field(default=1.0, ge=0, le=100)
    top_p: _Number = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=-1, strict=True)  # 0, -1: all
    n: int = Field(default=1, ge=1, le=MAX_CHOICES, strict=True)
    stop: _Stop | Annotated[tuple[_Stop, ...], Field(max_length=MAX_STOP_STRINGS)] = ()
    stream: _Switch = False
    stream_options: StreamOptions = StreamOptions()
    echo: _Switch = False
    logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS, strict=True)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63, strict=True)
    user: _Text | None = None
    best_of: int | None = Field(default=None, ge=1, strict=True)
    # What this engine does not have, at the values of `_OFF`.
    frequency_penalty: Literal[0] = 0
    presence_penalty: Literal[0] = 0
    logit_bias: dict[str, float] = Field(default={}, max_length=0)
    suffix: Literal[""] = ""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value

    @field_validator("prompt", mode="before")
    @classmethod
    def _prompt_is_text_or_tokens(cls, prompt: object) -> object:
        kinds = {"text" if isinstance(one, str) else _kind(one) for one in (prompt if isinstance(prompt, list) else ())}
        if isinstance(prompt, str) or kinds in ({"text"}, {"token"}, {"tokens"}):
            return prompt
        raise ValueError("expected a text, a list of texts, a list of tokens (whole numbers), or a list of such lists")

    @field_validator("stop", mode="before")
    @classmethod
    def _stop_strings_are_bounded(cls, stop: object) -> object:
        strings = stop if isinstance(stop, list | tuple) else [stop]
        short = all(isinstance(one, str) and 0 < len(one) <= MAX_STOP_CHARACTERS for one in strings)
        if not short or len(strings) > MAX_STOP_STRINGS:
            raise ValueError(
                f"expected at most {MAX_STOP_STRINGS} stop strings of 1 to {MAX_STOP_CHARACTERS} characters each"
            )
        return stop

    @model_validator(mode="after")
    def _choices_agree(self) -> CompletionRequest:
        if self.best_of not in (None, self.n):
            raise ValueError("best_of other than n is not supported: leave it out")
        if "stream_options" in self.model_fields_set and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts one by one: each text or tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [cast("list[int]", self.prompt)]
        return cast("list[str | list[int]]", self.prompt)

    def sampling(self, index: int) -> Sampling:
        """The sampling of the choice `index` of a prompt. Choices of one seed differ, and each is repeatable."""
        return Sampling(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=max(0, self.top_k),
            seed=None if self.seed is None else self.seed + index,
            stop=(self.stop,) if isinstance(self.stop, str) else self.stop,
            logprobs=self.logprobs,
            prompt_logprobs=self.echo and self.logprobs is not None,
        )


def request_schema() -> dict[str, Any]:
    """The JSON schema of a request, without references: they would be to the document that it becomes a part of.

    A field that may be left out may be null as well.
    """
    schema = CompletionRequest.model_json_schema()
    parts = {f"#/$defs/{name}": part for name, part in schema.pop("$defs").items()}

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(one) for one in value]
        if not isinstance(value, dict):
            return value
        found = {name: whole(one) for name, one in value.items() if name != "$ref"}
        return whole(parts[value["$ref"]]) | found if "$ref" in value else found

    resolved: dict[str, Any] = whole(schema)
    for name, field in resolved["properties"].items():
        if name not in resolved["required"] and {"type": "null"} not in field.get("anyOf", ()):
            about = {key: field.pop(key) for key in ("default", "title") if key in field}
            resolved["properties"][name] = {"anyOf": [field, {"type": "null"}], **about}
    return resolved


def parse(body: bytes) -> CompletionRequest:
    """A request from its body. Raises BadRequestError."""

    def refuse(constant: str) -> float:
        raise BadRequestError(f"the body is not valid JSON: {constant} is not a JSON number")

    try:
        value = json.loads(body.decode("utf-8"), parse_constant=refuse)
    except UnicodeDecodeError as error:
        raise BadRequestError(f"the body is not valid UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise BadRequestError("the body is nested too deeply") from None
    except ValueError as error:  # JSONDecodeError, and integers of more digits than Python converts
        raise BadRequestError(f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequestError("the body must be a JSON object")
    try:
        request = CompletionRequest.model_validate(value)
    except ValidationError as error:
        raise _refusal(error) from None
    except RecursionError:
        raise BadRequestError("the body is nested too deeply") from None
    texts = [request.model, request.prompt, request.stop]
    for text in (one for item in texts for one in (item if isinstance(item, list | tuple) else [item])):
        if isinstance(text, str) and not _is_unicode(text):
            raise BadRequestError("the body holds a lone surrogate, which is not a character")
    return request


def _refusal(error: ValidationError) -> BadRequestError:
    """The first thing that is wrong with a request, in words for whoever sent it."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = [str(part) for part in first["loc"]]
    message = first["msg"].removeprefix("Value error, ")
    if not where:  # the parameters together
        return BadRequestError(message)
    if where[0] in _OFF:
        message = f"not supported here: leave it out, or at {json.dumps(_OFF[where[0]])}"
    elif first["type"] == "extra_forbidden":
        known = StreamOptions if len(where) > 1 else CompletionRequest
        message = f"no such parameter; there are {', '.join(known.model_fields)}"
    return BadRequestError(f"{'.'.join(where)[:100]}: {message}", parameter=where[0])


def _kind(value: object) -> str:
    if type(value) is int and 0 <= value < 2**31:
        return "token"
    return "tokens" if isinstance(value, list) and value and {_kind(one) for one in value} == {"token"} else "other"


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


_NAME = {"type": ["string", "null"]}
ERROR_SCHEMA: Mapping[str, Any] = {  # of `error_body`
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}, "param": _NAME, "code": _NAME},
        }
    },
}


def error_body(message: str, status: int, parameter: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    kind = "server_error" if status >= 500 else "overloaded_error" if status == 429 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": parameter, "code": code}}


@dataclass
class Choice:
    """One choice of an answer as its events come."""

    index: int
    vocabulary: Vocabulary
    request: CompletionRequest
    prompt: tuple[int, ...]
    prompt_text: str
    text: str = ""
    tokens: int = 0
    finish_reason: str | None = None
    logprobs: dict[str, list[Any]] | None = None
    _started: bool = False

    def take(self, event: Event) -> dict[str, Any]:
        """Add an event; what it adds, in the shape of a choice of a streamed chunk."""
        echoed = self.request.echo
        text = self.prompt_text + event.text if echoed and not self._started else event.text
        scores: dict[str, list[Any]] | None = None
        if self.request.logprobs is not None:
            scores = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
            if echoed and not self._started:
                self._add_prompt(scores, event.prompt_logprobs or ())
            if event.token is not None and event.logprobs is not None:
                start = len(self.prompt_text) if echoed else 0
                self._add(scores, event.token, event.logprobs, start + event.offset)
            self.logprobs = self.logprobs or {key: [] for key in scores}
            for key, values in scores.items():
                self.logprobs[key].extend(values)
        self._started = True
        self.tokens += event.token is not None
        self.text += text
        self.finish_reason = event.finish_reason
        return {"index": self.index, "text": text, "logprobs": scores, "finish_reason": event.finish_reason}

    def whole(self) -> dict[str, Any]:
        """The choice of an answer that is not streamed."""
        return {
            "index": self.index,
            "text": self.text,
            "logprobs": self.logprobs,
            "finish_reason": self.finish_reason,
        }

    def _add_prompt(self, scores: dict[str, list[Any]], logprobs: Sequence[TokenLogprobs]) -> None:
        stream = TextStream(self.vocabulary.table)
        for token, found in zip(self.prompt, logprobs, strict=True):
            self._add(scores, token, found, stream.decoded_characters)
            stream.push(token)

    def _add(self, scores: dict[str, list[Any]], token: int, found: TokenLogprobs, offset: int) -> None:
        name = self.vocabulary.name
        asked = bool(self.request.logprobs) and found.chosen is not None
        scores["tokens"].append(name(token))
        scores["token_logprobs"].append(found.chosen)
        scores["top_logprobs"].append({name(one): value for one, value in found.top} if asked else None)
        scores["text_offset"].append(offset)


def envelope(model_name: str) -> dict[str, Any]:
    """What every chunk of one answer begins with."""
    return {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model_name,
    }


def usage(prompts: list[tuple[int, ...]], choices: list[Choice]) -> Mapping[str, int]:
    prompt_tokens = sum(len(prompt) for prompt in prompts)
    completion_tokens = sum(choice.tokens for choice in choices)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
