"""Applies one operation to one draft, as a source's list of operations would."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from stages.corpus.operations.operation import Draft, Drop, Operation
from stages.corpus.operations.registry import AnyOperation

_ADAPTER: TypeAdapter[Operation] = TypeAdapter(AnyOperation)


def made(operation: str, **parameters: Any) -> Operation:
    """The operation as YAML would declare it."""
    return _ADAPTER.validate_python({"operation": operation, **parameters})


def apply(operation: str, text: str, label: dict[str, Any] | None = None, **parameters: Any) -> Draft | Drop:
    """The result of the operation on a text. `label`: path, url, license, language of the draft."""
    return made(operation, **parameters).function()(replace(Draft(text, "a.txt"), **(label or {})))


def text_of(found: Draft | Drop) -> str:
    assert isinstance(found, Draft), found
    return found.text


def rule_of(found: Draft | Drop) -> str | None:
    """The rule that dropped the draft; None if it was kept."""
    return found.rule if isinstance(found, Drop) else None
