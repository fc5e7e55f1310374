"""What a key meant that the configuration does not have: a step, a field of a step, or a file for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages import registry
from stages.registry import RegistryError


def remedy(key: str, value: str, steps: Mapping[str, Any], choices: Mapping[str, Any]) -> str:
    """What to write instead, or "". `steps`: as in YAML. `choices`: the files that were chosen, by group@package."""
    first, _, rest = key.partition(".")
    if first in steps and rest:
        return f"Did you mean steps.{key}={value}?"
    places = [place for place in choices if place.startswith(f"{key}@steps.")]
    if places:
        return _one_of([f"{place}={value}" for place in places])
    having = [name for name, fields in steps.items() if _has(fields, first)]
    return _one_of([f"steps.{name}.{key}={value}" for name in having]) if having else ""


def _one_of(overrides: list[str]) -> str:
    return f"Did you mean {overrides[0]}?" if len(overrides) == 1 else f"Did you mean one of {', '.join(overrides)}?"


def _has(fields: Any, name: str) -> bool:
    """Whether the stage of a step has a field of that name."""
    stage = fields.get("stage") if isinstance(fields, Mapping) else None
    try:
        return isinstance(stage, str) and name in registry.STAGES.load(stage).model_fields
    except RegistryError:
        return False
