"""How a run differs from its pipeline as the YAML files declare it: the parameters of the run, and its name.

The parameters are every override of the command line, and every value of a step that differs from what the pipeline's
files say. A key has no `steps.`: `pretrain.learning_rate`. The name has the overrides alone, each by the last part of
its key, because one that chooses a file (`model@steps.pretrain.model=debug`) stands for many values.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipelines import config
from pipelines.config import Composition
from pipelines.differences import EXECUTION, leaves
from pipelines.errors import ConfigError
from pipelines.formatting import short_value
from pipelines.graph import Graph
from pipelines.provenance import Variant
from pipelines.redaction import HIDDEN, shown_override, shown_values
from pipelines.stage_values import stage_values

LONGEST_NAME = 120  # characters
# Where and how a run is executed: parameters, but not what it is named by.
PLACES = {*EXECUTION, "store", "tracking", "sweep", "packages", "pipeline"}
OVERRIDE = re.compile(r"(?P<mark>\+{0,2}|~)(?P<key>[^=@]*)(@(?P<package>[^=]*))?(=(?P<value>.*))?", re.DOTALL)


def of(composition: Composition, overrides: Sequence[str], base: Graph | None = None) -> Variant:
    """The variant that a command line makes. `base`: the graph of the pipeline alone, if it was composed before."""
    chosen = dict(given(overrides))
    named = of_work(chosen)
    parameters = {key: value for key, value in chosen.items() if key != "pipeline"}
    if named:
        values, shown = flat(composition.graph), flat(composition.graph, shown=True)
        if before := flat(base or pipeline_alone(overrides)):
            parameters |= {key: shown[key] for key, value in values.items() if before.get(key) != value}
        parameters |= {key: shown[key] for key in chosen if key in shown}
    return Variant(name(composition.graph.name, named), parameters)


def pipeline_alone(overrides: Sequence[str]) -> Graph | None:
    """The graph of a pipeline without the other overrides; None if it is not complete without them."""
    files = config.declaring(overrides)
    if files is None:
        return None
    try:
        return config.compose(files).graph
    except ConfigError:
        return None


def flat(graph: Graph | None, shown: bool = False) -> dict[str, str]:
    """Every value of every step as a text, by `step.field`; `shown`: as it may be shown and stored."""
    found: dict[str, str] = {}
    for step in graph.steps.values() if graph else ():
        found[f"{step.name}.stage"] = step.stage_name
        values = dict(leaves(stage_values(step.stage)))
        kept = dict(leaves(shown_values(stage_values(step.stage), step.shown))) if shown else values
        found |= {f"{step.name}.{key}": _text(kept.get(key, HIDDEN)) for key in values}
    return found


def name(pipeline: str, overrides: Mapping[str, str]) -> str:
    """The name of a run: `books · learning_rate=1e-3 steps=40`, or the pipeline's name if nothing was overridden."""
    if not overrides:
        return pipeline
    found = f"{pipeline} · {described(overrides)}"
    return found if len(found) <= LONGEST_NAME else f"{found[: LONGEST_NAME - 2]} …"


def described(overrides: Mapping[str, str]) -> str:
    """Overrides as one short line."""
    short = short_keys(overrides)
    return " ".join(f"{short[key]}={short_value(value)}" for key, value in overrides.items())


def of_work(overrides: Mapping[str, str]) -> dict[str, str]:
    """The overrides that say what is computed, without those that say where and how."""
    return {key: value for key, value in overrides.items() if key.partition(".")[0] not in PLACES}


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Each key by its last part, or by all of it where two keys have the same last part."""
    keys = list(keys)
    counts = Counter(key.rpartition(".")[2] for key in keys)
    return {key: last if counts[last := key.rpartition(".")[2]] == 1 else key for key in keys}


def given(overrides: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The key and the value of every override as they may be shown and stored, without those of Hydra itself."""
    for override in map(shown_override, overrides):
        found = OVERRIDE.fullmatch(override)
        if override.startswith("-") or not found or re.match("hydra[./]", found["key"]):
            continue
        key = (found["package"] or found["key"]).removeprefix("steps.")
        yield key, "(removed)" if found["mark"] == "~" else unquoted(found["value"] or "")


def unquoted(value: str) -> str:
    """A value without the quotes that Hydra's grammar needs."""
    whole = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if whole else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
