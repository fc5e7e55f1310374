"""How two runs differ: in what they were asked to do, and in what came out. The values of nested mappings by key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.formatting import quantity
from pipelines.run_record import RunRecord, StepResult

# The overrides that say how the steps of a pipeline are executed, and which of them. Two runs that differ in nothing
# else can differ in their results: by a kernel of another machine, or by a step that one of them left out.
EXECUTION = ("cluster", "from", "until", "only", "force")
LONGEST_VALUE = 160  # characters


def differences(run: RunRecord, other: RunRecord) -> Iterator[tuple[str, Any, Any]]:
    """In what two runs differ that decides their results. A value that one does not have is None.

    The keys are those of the command line: `pipeline`, `steps.STEP.FIELD`, `cluster`, `until`; then `commit`, and
    `version of LIBRARY`. A step that only one run has is one difference, `steps.STEP`.
    """
    shared = {step.name for step in run.steps} & {step.name for step in other.steps}
    one, two = _values(run, shared), _values(other, shared)
    for key in dict.fromkeys([*one, *two]):
        missing = "not given" if _is_execution(key) else None
        if one.get(key, missing) != two.get(key, missing):
            yield key, one.get(key, missing), two.get(key, missing)


def results(run: RunRecord, other: RunRecord) -> Iterator[tuple[str, str, str, str, str]]:
    """The headlines in which two runs differ: the step, the name, both values as people read them, and the change.

    A value that one run does not have is "none", also where its step did not end: what it had measured is not a result.
    """
    for name, step, same in pairs(run, other):
        one, two = (side.headline if side and side.state in ("done", "cached") else None for side in (step, same))
        if one != two:
            metric = (two or one or ("", 0.0))[0]
            found = [side[1] if side and side[0] == metric else None for side in (one, two)]
            label = quantity(metric, found[1] if found[1] is not None else found[0] or 0.0)[0]
            texts = ["none" if value is None else quantity(metric, value)[1] for value in found]
            yield name, label, texts[0], texts[1], _change(*found)


def pairs(run: RunRecord, other: RunRecord) -> list[tuple[str, StepResult | None, StepResult | None]]:
    """The steps of two runs, by name."""
    first, second = ({step.name: step for step in one.steps} for one in (run, other))
    return [(name, first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])]


def shown(value: Any) -> str:
    """A value in which runs differ, as one line of bounded length."""
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings, by dotted key. Lists stay whole."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _values(run: RunRecord, shared: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"pipeline": run.pipeline}
    for step in run.steps:
        if step.name not in shared:
            found[f"steps.{step.name}"] = f"stage {step.stage}"
            continue
        found[f"steps.{step.name}.stage"] = step.stage
        found |= {f"steps.{step.name}.{key}": value for key, value in leaves(step.config)}
    found |= {key: value for key, value in run.parameters.items() if _is_execution(key)}
    if run.git_commit:
        found["commit"] = run.git_commit[:12] + (" with uncommitted changes" if run.git_dirty else "")
    return found | {f"version of {name}": version for name, version in run.versions.items()}


def _is_execution(key: str) -> bool:
    return key.partition(".")[0] in EXECUTION


def _change(before: float | None, now: float | None) -> str:
    """In percent, where a ratio has a meaning."""
    if before is None or now is None or before <= 0 or now <= 0:
        return ""
    change = now / before - 1
    return f"{change:+.1%}" if abs(change) >= 0.01 else f"{change:+.2%}"
