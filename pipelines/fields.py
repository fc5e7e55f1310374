"""The fields of stages and configs as people read them: type, default, description, and whether they are identity.

A field's type and description are taken from the source: the annotation as it is written, and the comment behind it.
"""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from stages.base import Artifact, RuntimeMarker
from stages.registry import ChosenBy


@dataclass(frozen=True)
class Field:
    """One field of a stage or config."""

    name: str  # as in YAML
    type: str
    default: str  # as in YAML; "" if the field is required
    description: str
    is_runtime: bool  # says how the work is done; never part of the fingerprint


def summary(kind: type) -> str:
    """The first paragraph of a class's docstring, in one line."""
    return " ".join((kind.__doc__ or "").strip().split("\n\n")[0].split())


def fields(model: type[BaseModel]) -> list[Field]:
    """The fields of a model in their order."""
    found = []
    for name, info in model.model_fields.items():
        annotation, comment = _written(model, name)
        is_runtime = any(isinstance(mark, RuntimeMarker) for mark in info.metadata)
        if is_runtime:
            annotation = annotation.removeprefix("Runtime[").removesuffix("]")
        if annotation in ("int", "float", "int | None", "float | None"):
            annotation += _bounds(info)
        for mark in _choices_in(info):
            one = info.metadata and mark in info.metadata
            kind = mark.registry.kind if one else f"a list, each {mark.registry.kind.partition(' ')[2]}"
            annotation = f"{kind}, by `{mark.key}`"
        found.append(Field(info.alias or name, annotation, _default(info), info.description or comment, is_runtime))
    return found


def choices(model: type[BaseModel]) -> list[ChosenBy]:
    """The registries whose classes a model's fields hold, at any depth, each once."""
    found = [
        mark for kind in [model, *configs(model)] for info in kind.model_fields.values() for mark in _choices_in(info)
    ]
    return list({mark.registry.group: mark for mark in found}.values())


def configs(model: type[BaseModel]) -> list[type[BaseModel]]:
    """The config classes that a model's fields hold, at any depth, each once."""
    found: dict[type[BaseModel], None] = {}
    for info in model.model_fields.values():
        for kind in _models_in(info.annotation):
            if kind not in found and not any(isinstance(mark, ChosenBy) for mark in info.metadata):
                found.update(dict.fromkeys([kind, *configs(kind)]))
    return list(found)


def artifacts(model: type[BaseModel]) -> list[type[Artifact]]:
    """The artifact types that a model's fields name, at any depth: what a stage reads."""
    found: dict[type[Artifact], None] = {}
    for kind in [model, *configs(model)]:
        for info in kind.model_fields.values():
            found.update(dict.fromkeys(_classes_in(info.annotation, Artifact)))
    return list(found)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    return _classes_in(annotation, BaseModel)


def _classes_in(annotation: Any, base: type) -> list[Any]:
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation] if issubclass(annotation, base) else []
    if any(isinstance(argument, ChosenBy) for argument in get_args(annotation)):
        return []
    return [found for argument in get_args(annotation) for found in _classes_in(argument, base)]


def _choices_in(info: FieldInfo) -> list[ChosenBy]:
    """The registries in the annotation of a field: of the field itself, or of the items of its list."""
    marks = [*info.metadata, *(mark for argument in get_args(info.annotation) for mark in get_args(argument))]
    return [mark for mark in marks if isinstance(mark, ChosenBy)]


def _bounds(info: FieldInfo) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    known = [(sign, getattr(mark, name, None)) for mark in info.metadata for name, sign in signs.items()]
    return "".join(f", {sign} {value}" for sign, value in known if value is not None)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return ""
    return _yaml(info.get_default(call_default_factory=True))


def _yaml(value: Any) -> str:
    """A default as it would be written in YAML; of a config the fields that are set, and its tag in a registry."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, BaseModel):
        set_ = {
            name: getattr(value, name)
            for name, info in type(value).model_fields.items()
            if name in value.model_fields_set or get_origin(info.annotation) is Literal
        }
        return "{" + ", ".join(f"{name}: {_yaml(item)}" for name, item in set_.items()) + "}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, set | frozenset):
        return "[" + ", ".join(sorted(map(_yaml, value))) + "]"
    return str(value) if value != "" else '""'


def _written(model: type[BaseModel], name: str) -> tuple[str, str]:
    """The annotation of a field as it is written, and the comment behind it."""
    for base in model.__mro__:
        if name in vars(base).get("__annotations__", {}):
            found = _source_of_fields(base).get(name)
            return found or (str(vars(base)["__annotations__"][name]), "")
    return "", ""


@cache
def _source_of_fields(kind: type) -> Mapping[str, tuple[str, str]]:
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return {}
    comments = dict(_comments(source))
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            said = " ".join(comments[line] for line in lines if line in comments)
            found[node.target.id] = ast.unparse(node.annotation), said
    return found


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ").strip()
