"""What a key meant that the configuration does not have: a step, a field of a step, or a file for one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stages import registry
from stages.registry import RegistryError

MOST = 3  # places that are named


def remedy(key: str, value: str, steps: Mapping[str, Any], choices: Mapping[str, Any]) -> str:
    """What to write instead, or "". `steps`: as in YAML. `choices`: the files that were chosen, by group@package."""
    if key == "text":
        return "The pipeline of your own text takes it: pipeline=text."
    first, _, rest = key.partition(".")
    if first in steps and rest:
        return f"Did you mean steps.{key}={value}?"
    if rest == "stage":
        return f"Did you mean steps.{key}={value}, which adds a step?"
    places = [place for place in choices if place.startswith(f"{key}@steps.")]
    if places:
        return _one_of([f"{place}={value}" for place in places])
    having = [name for name, fields in steps.items() if _has(fields, first)]
    below = having or list(dict.fromkeys(_above(steps, first)))[:MOST]
    return _one_of([f"steps.{name}.{key}={value}" for name in below]) if below else ""


def _above(values: Mapping[str, Any], name: str) -> Iterator[str]:
    """Where within the values of steps a key of that name is, such as `corpus.sources.log.reader` for `paths`."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            if name in value:
                yield key
            yield from (f"{key}.{below}" for below in _above(value, name))


def _one_of(overrides: list[str]) -> str:
    return f"Did you mean {overrides[0]}?" if len(overrides) == 1 else f"Did you mean one of {', '.join(overrides)}?"


def _has(fields: Any, name: str) -> bool:
    """Whether the stage of a step has a field of that name."""
    stage = fields.get("stage") if isinstance(fields, Mapping) else None
    try:
        return isinstance(stage, str) and name in registry.STAGES.load(stage).model_fields
    except RegistryError:
        return False
