"""The fields of a stage as JSON values, as the store and the tracking have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from pipelines.graph import Step
from pipelines.redaction import shown_values
from pipelines.store.json_values import plain
from stages.base import Edge, Stage


def shown_stage_values(step: Step) -> dict[str, Any]:
    """Every field of the stage of a step, as it may be shown and stored."""
    found: dict[str, Any] = shown_values(stage_values(step.stage), step.shown)
    return found


def stage_values(stage: Stage) -> dict[str, Any]:
    """Every field of a stage as JSON values; an edge as the name of its step."""
    found: dict[str, Any] = plain(_without_edges(stage))
    return found


def _without_edges(value: Any) -> Any:
    if isinstance(value, Edge):
        return value.step
    if isinstance(value, BaseModel):
        return {name: _without_edges(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {key: _without_edges(item) for key, item in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [_without_edges(item) for item in value]
    return value
