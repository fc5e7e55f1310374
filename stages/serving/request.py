"""Completion requests: OpenAI's shape, without parameters that would be ignored.

A request is refused (`BadRequestError`) with the parameter, what is wrong with it and what was expected. A parameter of
OpenAI's API that this engine does not support is accepted only with the value that disables it.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, cast

from pydantic import Field, ValidationError, field_validator, model_validator

from stages.base import Config
from stages.inference.sampling import Sampling
from stages.serving.errors import BadRequestError

DEFAULT_TOKENS = 16  # of a completion whose length is not given
MAX_STOP_STRINGS = 16
MAX_STOP_CHARACTERS = 256
MAX_CHOICES = 128
MAX_LOGPROBS = 20

_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Text = Annotated[str, Field(strict=True)]
_Switch = Annotated[bool, Field(strict=True)]
_Token = Annotated[int, Field(ge=0)]
_Prompts = Field(min_length=1)
# The bounds are only documented here and checked below: with pydantic's own bounds, a string with a lone surrogate
# would be refused with a message about its encoding.
_Stop = Annotated[str, Field(strict=True, json_schema_extra={"minLength": 1, "maxLength": MAX_STOP_CHARACTERS})]

# Parameters of OpenAI's API that this engine does not support, with the value that disables each.
_OFF = {"frequency_penalty": 0, "presence_penalty": 0, "logit_bias": {}, "suffix": "", "include_obfuscation": False}


def _without_null(value: Any) -> Any:
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


class StreamOptions(Config):
    include_usage: _Switch = False
    include_obfuscation: Literal[False] = False

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        return _without_null(value)


class CompletionRequest(Config):
    """The body of a request to /v1/completions."""

    model: _Text | None = None  # None: the served model
    prompt: (
        str
        | Annotated[list[str], _Prompts]
        | Annotated[list[_Token], _Prompts]
        | Annotated[list[Annotated[list[_Token], _Prompts]], _Prompts]
    )
    # None: `DEFAULT_TOKENS`, or what is left of the model's context if that is less.
    max_tokens: int | None = Field(default=None, ge=0, strict=True)
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
    # Unsupported parameters, with the only accepted values: those of `_OFF`.
    frequency_penalty: Literal[0] = 0
    presence_penalty: Literal[0] = 0
    logit_bias: dict[str, float] = Field(default={}, max_length=0)
    suffix: Literal[""] = ""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        return _without_null(value)

    @field_validator("prompt", mode="before")
    @classmethod
    def _prompt_is_text_or_tokens(cls, prompt: object) -> object:
        kinds = {"text" if isinstance(one, str) else _kind(one) for one in (prompt if isinstance(prompt, list) else ())}
        if isinstance(prompt, str) or kinds in ({"text"}, {"token"}, {"tokens"}):
            return prompt
        raise ValueError(
            "expected a text, a list of texts, a list of tokens (integers from 0), or a list of lists of tokens"
        )

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
            raise ValueError("best_of is supported only with the same value as n: leave it out")
        if "stream_options" in self.model_fields_set and not self.stream:
            raise ValueError("stream_options is accepted only together with stream: true")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each a text or a list of tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return cast("list[str | list[int]]", [self.prompt])
        return cast("list[str | list[int]]", self.prompt)

    def sampling(self, index: int, max_tokens: int) -> Sampling:
        """The sampling of choice `index` of a prompt. With a seed, every choice is repeatable and differs from the
        others."""
        return Sampling(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=max(0, self.top_k),
            seed=None if self.seed is None else self.seed + index,
            stop=(self.stop,) if isinstance(self.stop, str) else self.stop,
            logprobs=self.logprobs,
            prompt_logprobs=self.echo and self.logprobs is not None,
        )


def request_schema() -> dict[str, Any]:
    """The JSON schema of a request body, with all references resolved: it becomes a part of an OpenAPI document.

    A field that can be left out can also be null.
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
    """The request in an HTTP body. Raises BadRequestError."""

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
            raise BadRequestError("the body contains a lone surrogate, which is not a valid character")
    return request


def _refusal(error: ValidationError) -> BadRequestError:
    """The first problem of a request, with the message for the client."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = [str(part) for part in first["loc"]]
    message = first["msg"].removeprefix("Value error, ")
    if not where:  # a combination of parameters
        return BadRequestError(message)
    if where[-1] in _OFF:
        message = f"not supported by this server: leave it out or set it to {json.dumps(_OFF[where[-1]])}"
    elif first["type"] == "extra_forbidden":
        known = StreamOptions if len(where) > 1 else CompletionRequest
        message = f"unknown parameter; the known ones are {', '.join(known.model_fields)}"
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
