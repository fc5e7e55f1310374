"""From pydantic's errors to ours: the key as on the command line, the value, what was expected, the nearest name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from pipelines.errors import Problem, nearest, remedy_of
from stages.base import Artifact
from stages.registry import ChosenBy, RegistryError


def problems(prefix: str, model: type[BaseModel], error: ValidationError, values: Mapping[str, Any]) -> list[Problem]:
    """Every problem that validating `values` as a `model` found; keys begin with `prefix` (may be empty)."""
    return [_problem(prefix, model, detail, values) for detail in error.errors(include_url=False)]


def field_names(model: type[BaseModel]) -> list[str]:
    """The fields of a model as they are written in YAML."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _problem(prefix: str, model: type[BaseModel], detail: Any, values: Mapping[str, Any]) -> Problem:
    owner, tags = _owner(model, detail["loc"], values)
    location = [part for index, part in enumerate(detail["loc"]) if index not in tags]
    key = ".".join(str(part) for part in ([prefix] if prefix else []) + location)
    last = str(location[-1]) if location else ""
    if detail["type"] == "extra_forbidden" and not prefix and _is_step(detail["input"]):
        remedy = f"Did you mean steps.{key}.stage={detail['input']['stage']}, which adds a step?"
        return Problem(key, "no such key", "a key of the configuration", remedy)
    if detail["type"] == "extra_forbidden":
        return Problem(
            key, f"unknown field {last!r}", "a field that exists", nearest(last, field_names(owner) if owner else [])
        )
    if detail["type"] == "missing":
        return Problem(key, "missing", _expected(owner, last))
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        tag = detail["ctx"].get("tag")
        kind = detail["ctx"]["discriminator"].strip("'")
        expected = detail["ctx"].get("expected_tags", "a known kind")
        if tag is None:
            return Problem(f"{key}.{kind}", "missing", f"one of {expected}")
        return Problem(
            f"{key}.{kind}", repr(tag), "a kind that exists", nearest(str(tag), re.findall("'([^']+)'", expected))
        )
    if detail["type"] == "registry":
        refused: RegistryError = detail["ctx"]["error"]
        return Problem(f"{key}.{detail['ctx']['key']}", refused.found, refused.expected, remedy_of(refused))
    message = _phrase(detail)
    value = detail["input"]
    if not location or isinstance(value, dict):
        return Problem(key, message, "")
    remedy = _quotes(key, value) if detail["type"] in ("string_type", "path_type") else ""
    if message == PHRASES["list_type"] and isinstance(value, str | int | float):
        remedy = f"With one value, in a shell: {shlex.quote(f'{key}=[{value}]')}."
    return Problem(key, repr(value), message.removeprefix("expected "), remedy)


def _is_step(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("stage"), str)


def _quotes(key: str, value: Any) -> str:
    """How to write as a text what was read as a number, a truth value or null."""
    if not (value is None or isinstance(value, bool | int | float)):
        return ""
    text = {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else value
    return f'Write it in quotes: "{text}" in YAML, \'{key}="{text}"\' in a shell.'


# What pydantic expected, by the type of its error; the values in braces are from the error's context.
PHRASES = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "an integer"),
    **dict.fromkeys(("float_parsing", "float_type"), "a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
    **dict.fromkeys(("tuple_type", "list_type", "set_type", "frozen_set_type"), "a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type"), "a mapping"),
    "string_type": "a string",
    "string_unicode": "text in UTF-8",
    "path_type": "a path",
    "none_required": "null",
    "finite_number": "a finite number",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_pattern_mismatch": "a string that matches {pattern!r}",
    "string_too_short": "a string with a length of at least {min_length}",
    "string_too_long": "a string with a length of at most {max_length}",
    "too_short": "a list with a length of at least {min_length}",
    "too_long": "a list with a length of at most {max_length}",
}


def _phrase(detail: Any) -> str:
    """What an error of pydantic expected, or the message of a validator of ours."""
    if phrase := PHRASES.get(detail["type"]):
        return phrase.format_map(detail.get("ctx", {}))
    return re.sub(r"^(Value error, |\w+ should (be|have) )", "", detail["msg"]).rstrip(".")


Candidate = type[BaseModel] | ChosenBy  # of a value: its model, or what tells the model from the value


def _owner(
    model: type[BaseModel], location: Sequence[str | int], values: Any
) -> tuple[type[BaseModel] | None, set[int]]:
    """The model that holds the last part of a location, and which parts are not keys but tags of unions."""
    owner: type[BaseModel] | None = model
    candidates: list[Candidate] = []
    tags: set[int] = set()
    for index, part in enumerate(location):
        tagged = [candidate for candidate in candidates if part in _tags(candidate)]
        if isinstance(part, str) and part.startswith("function-"):
            tags.add(index)
            continue
        if tagged and len(candidates) > 1:
            tags.add(index)
            owner, candidates = _model(tagged[0], values), []
            continue
        last = index == len(location) - 1
        if candidates and (last or not isinstance(part, int)):
            owner, candidates = _model(candidates[0], values), []
        if not last and owner is not None:
            found = [field for name, field in owner.model_fields.items() if part in (name, field.alias)]
            if found:
                candidates = _candidates(found[0])
        values = _item(values, part)
    return owner, tags


def _item(values: Any, part: str | int) -> Any:
    """The value at a key or a place; None where there is none."""
    if isinstance(values, Mapping):
        return values.get(part)
    if isinstance(values, Sequence) and isinstance(part, int) and part < len(values):
        return values[part]
    return None


def _model(candidate: Candidate, value: Any) -> type[BaseModel] | None:
    try:
        return candidate.choose(value) if isinstance(candidate, ChosenBy) else candidate
    except RegistryError:
        return None


def _tags(candidate: Candidate) -> set[Any]:
    if isinstance(candidate, ChosenBy):
        return set()
    literals = (
        field.annotation for field in candidate.model_fields.values() if get_origin(field.annotation) is Literal
    )
    return {tag for literal in literals for tag in get_args(literal)}


def _candidates(field: FieldInfo) -> list[Candidate]:
    chosen = [mark for mark in field.metadata if isinstance(mark, ChosenBy)]
    return list(chosen) or _candidates_in(field.annotation)


def _candidates_in(annotation: Any) -> list[Candidate]:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, BaseModel) else []
    if get_origin(annotation) is Annotated:
        chosen = [mark for mark in annotation.__metadata__ if isinstance(mark, ChosenBy)]
        return list(chosen) or _candidates_in(annotation.__origin__)
    return [found for argument in get_args(annotation) for found in _candidates_in(argument)]


def _expected(owner: type[BaseModel] | None, field: str) -> str:
    annotation = owner.model_fields[field].annotation if owner and field in owner.model_fields else None
    if isinstance(annotation, type) and issubclass(annotation, Artifact):
        return f"the name of a step that makes a {annotation.__name__}"
    return f"a value of type {getattr(annotation, '__name__', annotation)}"
