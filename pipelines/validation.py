"""From pydantic's errors to ours: the key as on the command line, the value, what was expected, the nearest name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from pipelines.errors import Problem, nearest
from stages.base import Artifact


def problems(prefix: str, model: type[BaseModel], error: ValidationError) -> list[Problem]:
    """Every problem of a ValidationError of `model`; keys begin with `prefix` (may be empty)."""
    return [_problem(prefix, model, detail) for detail in error.errors(include_url=False)]


def field_names(model: type[BaseModel]) -> list[str]:
    """The fields of a model as they are written in YAML."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _problem(prefix: str, model: type[BaseModel], detail: Any) -> Problem:
    owner, tags = _owner(model, detail["loc"])
    location = [part for index, part in enumerate(detail["loc"]) if index not in tags]
    key = ".".join(str(part) for part in ([prefix] if prefix else []) + location)
    last = str(location[-1]) if location else ""
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
    message = re.sub(r"^(Value error, |\w+ should (be|have) )", "", detail["msg"]).rstrip(".")
    value = detail["input"]
    if not location or isinstance(value, dict):
        return Problem(key, message, "values that fit together")
    return Problem(key, repr(value), message.removeprefix("expected "))


def _owner(model: type[BaseModel], location: Iterable[str | int]) -> tuple[type[BaseModel] | None, set[int]]:
    """The model that holds the last part of a location, and which parts are not keys but tags of unions."""
    owner: type[BaseModel] | None = model
    candidates: list[type[BaseModel]] = []
    tags: set[int] = set()
    parts = list(location)
    for index, part in enumerate(parts):
        tagged = [candidate for candidate in candidates if part in _tags(candidate)]
        if isinstance(part, str) and part.startswith("function-"):
            tags.add(index)
        elif tagged and len(candidates) > 1:
            tags.add(index)
            owner, candidates = tagged[0], []
        elif index < len(parts) - 1 and owner is not None:
            if candidates and not isinstance(part, int):
                owner, candidates = candidates[0], []
            found = [field for name, field in owner.model_fields.items() if part in (name, field.alias)]
            if found:
                candidates = _models_in(found[0].annotation)
        elif candidates:
            owner, candidates = candidates[0], []
    return owner, tags


def _tags(model: type[BaseModel]) -> set[Any]:
    literals = (field.annotation for field in model.model_fields.values() if get_origin(field.annotation) is Literal)
    return {tag for literal in literals for tag in get_args(literal)}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [found for argument in get_args(annotation) for found in _models_in(argument)]


def _expected(owner: type[BaseModel] | None, field: str) -> str:
    annotation = owner.model_fields[field].annotation if owner and field in owner.model_fields else None
    if isinstance(annotation, type) and issubclass(annotation, Artifact):
        return f"the name of a step that makes a {annotation.__name__}"
    return f"a value of type {getattr(annotation, '__name__', annotation)}"
