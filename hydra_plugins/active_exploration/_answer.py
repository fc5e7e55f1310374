"""The answer of a sweep: a table in JSON, and a configuration file for every context."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException

from hydra_plugins.active_exploration._search import SIGN, Search
from stages.exploration.contextual import answers
from stages.exploration.space import Configuration

TABLE, TEXT = "active_exploration.json", "active_exploration.txt"
GROUP = "best"  # the config group of the configuration files


def rows(search: Search) -> list[dict[str, Any]]:
    """A row for each context: the best action, and the bounds of its value, in the direction of the task.

    `guaranteed` is the bound on the bad side: the lower one of a value to maximise, the upper one of one to minimise.
    Raises HydraException if no trial succeeded.
    """
    if all(trial.failed for trial in search.trials):
        raise HydraException(
            f"active exploration: all {len(search.trials)} trials failed, so there is no answer. See the errors above."
        )
    sign = SIGN[search.direction]
    return [
        {
            "context": dict(one.context),
            "action": dict(one.action),
            "guaranteed": sign * one.lower,
            "expected": sign * one.mean,
            "hoped": sign * one.upper,
            "gap": one.gap,
            "trials": one.trials,
        }
        for one in answers(search.space, search.trials, search.settings)
    ]


def write(search: Search, found: list[dict[str, Any]], is_group: Callable[[str], bool]) -> Path:
    """Write the table, in JSON and as text, and the configuration files; returns the path of the table in JSON.

    `is_group`: whether a key is that of a config group, which a configuration file has to choose in its defaults.
    """
    folder = search.output
    (folder / GROUP).mkdir(parents=True, exist_ok=True)
    names = _names([row["context"] for row in found])
    for row in found:
        row["config"] = names.pop(0)
        text = _config({**row["context"], **row["action"]}, is_group)
        (folder / GROUP / f"{row['config']}.yaml").write_text(text, encoding="utf-8")
    content = {
        "direction": search.direction,
        "policy": search.settings.policy,
        "trials": [
            {
                "configuration": dict(trial.configuration),
                "value": None if trial.failed else SIGN[search.direction] * sum(trial.values) / len(trial.values),
            }
            for trial in search.trials
        ],
        "answer": found,
    }
    path = folder / TABLE
    (folder / TEXT).write_text(f"{table(found)}\n", encoding="utf-8")
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def _names(contexts: Sequence[Configuration]) -> list[str]:
    """The names of the contexts' configuration files: the last part of each key, and its value. None is there twice."""
    found: list[str] = []
    for context in contexts:
        parts = [f"{key.rpartition('.')[2]}_{value}" for key, value in context.items()]
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", "-".join(parts)).strip("_") or "all"
        found.append(f"{name}-{len(found)}" if name in found else name)
    return found


def _config(configuration: Configuration, is_group: Callable[[str], bool]) -> str:
    """A configuration file that sets the values of a configuration, for `--config-dir OUTPUT +best=NAME`."""
    values: dict[str, Any] = {}
    defaults: list[Any] = []
    for key, value in configuration.items():
        if is_group(key):
            defaults.append({f"override /{key}": value})
            continue
        place = values
        *parents, last = key.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    content = {**({"defaults": [*defaults, "_self_"]} if defaults else {}), **values}
    return f"# @package _global_\n{yaml.safe_dump(content, sort_keys=False)}"


def command(folder: Path, name: str, fixed: Sequence[str]) -> str:
    """The command line that runs one configuration of the answer. `fixed`: the overrides that do not sweep."""
    program = ["bloomline", "run"] if sys.argv[0] == "bloomline" else ["python", sys.argv[0]]
    kept = [override for override in fixed if not override.lstrip("+~").startswith(("hydra.", "hydra/", "sweep."))]
    return shlex.join([*program, "--config-dir", str(folder), f"+{GROUP}={name}", *kept])


def table(found: list[dict[str, Any]]) -> str:
    """The answer as lines of text."""

    def cell(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    keys = list(dict.fromkeys(key for row in found for part in ("context", "action") for key in row[part]))
    head = [*keys, "expected", "guaranteed", "trials"]
    lines = [head] + [
        [*(cell({**row["context"], **row["action"]}.get(key, "-")) for key in keys),
         *(cell(row[name]) for name in head[len(keys):])]
        for row in found
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(size) for text, size in zip(row, widths, strict=True)).rstrip() for row in lines
    )
