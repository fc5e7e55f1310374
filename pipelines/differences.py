"""The values in which two runs differ, and the values of nested mappings by dotted key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.run_history import RunRecord


def differences(run: RunRecord, other: RunRecord) -> Iterator[tuple[str, Any, Any]]:
    """The values of steps in which two runs differ, by `step.field`. A value that one does not have is None."""
    one, two = _values(run), _values(other)
    for key in dict.fromkeys([*one, *two]):
        if one.get(key) != two.get(key):
            yield key, one.get(key), two.get(key)


def _values(run: RunRecord) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for step in run.steps:
        found[f"{step.name}.stage"] = step.stage
        found |= {f"{step.name}.{key}": value for key, value in leaves(step.config)}
    return found


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings, by dotted key. Lists stay whole."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
