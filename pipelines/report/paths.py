"""Paths of a machine as a reader of its report needs them: below the store, or below the user's home."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.summary import RunSummary, StepSummary

Shorten = Callable[[str], str]


def shortener(store: str) -> Shorten:
    """Shortens the paths in a text: those in the store begin with the store's last name, those below home with "~".

    `store`: the address of its root, which stays as it is where it is not a directory with a name.
    """
    home, names = str(Path.home()), {}
    forms = []
    if "://" not in store and len(Path(store).parts) > 1:
        names[store] = Path(store).name
        forms.append(f"{re.escape(store)}(?=/)")  # before home, in which it may be
    if len(Path(home).parts) > 1:
        names[home] = "~"
        forms.append(rf"{re.escape(home)}(?![\w.~-])")
    if not forms:
        return str
    form = re.compile(rf"(?<![\w./~-])(?:{'|'.join(forms)})")
    return lambda text: form.sub(lambda found: names[found[0]], text)


def shortened(run: RunSummary, shorten: Shorten) -> RunSummary:
    """The run with the paths in all of its texts shortened, except in commands: those are to be copied."""
    return replace(
        run,
        config_yaml=shorten(run.config_yaml),
        notes=tuple(map(shorten, run.notes)),
        steps=tuple(_step(step, shorten) for step in run.steps),
    )


def values(value: Any, shorten: Shorten) -> Any:
    """JSON values with the paths in their texts shortened."""
    if isinstance(value, str):
        return shorten(value)
    if isinstance(value, Mapping):
        return {name: values(inner, shorten) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [values(inner, shorten) for inner in value]
    return value


def _step(step: StepSummary, shorten: Shorten) -> StepSummary:
    return replace(
        step,
        reason=shorten(step.reason),
        config=values(step.config, shorten),
        highlights=values(step.highlights, shorten),
        artifact=shorten(step.artifact) if step.artifact else None,
        facts=values(step.facts, shorten),
        error=shorten(step.error) if step.error else None,
        frames=shorten(step.frames),
    )
