"""Caches what Hydra composed, so that a plan of an unchanged configuration need not import Hydra or parse YAML.

An entry holds for exactly the same overrides and working directory as long as every file and directory that Hydra asked
for, links followed, is as it was. It holds the configuration with its interpolations unresolved: each command
resolves them, so no value of the environment is ever written here. What can't be repeated from files alone (the time,
a resolver of a package, a name from the environment in the defaults list, configurations within a package) is never
remembered, and neither is a configuration that holds a secret. Losing the cache costs time only.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import uuid
from collections.abc import Mapping, Sequence, Set
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines import cache_directory
from pipelines.hydra_sources import Noted, state
from pipelines.resolution import PURE

RESOLVED_ANEW = {*PURE, "oc.env"}  # by each command, without Hydra

Values = Mapping[str, Any]


def load(overrides: Sequence[str]) -> Values | None:
    """The cached values of these overrides, unresolved, if nothing that they depend on has changed."""
    try:
        entry = json.loads(_path(overrides).read_bytes())
        if all(state(path) == before for path, before in entry["paths"].items()):
            values: Values = entry["values"]
            return values
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def is_repeatable(noted: Noted) -> bool:
    """Whether what Hydra composed depends on files alone. `noted`: while it composed.

    Merging resolves interpolations too, but only to find out whether they stand for a list or a mapping.
    """
    return not noted.lists and not noted.containers and noted.choosing <= PURE


def save(overrides: Sequence[str], values: Values, paths: Mapping[str, str], resolvers: Set[str]) -> None:
    """Remember a repeatable composition.

    `values`: unresolved. `paths`: what Hydra asked for. `resolvers`: those that were called to resolve the values; if
    Hydra or a package brought one of them, nothing is remembered.
    """
    if not resolvers <= RESOLVED_ANEW:
        return
    if not _survives_json(values):
        return
    with contextlib.suppress(OSError):  # without a writable home it is composed again next time
        path = _path(overrides)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)  # overrides and files may hold secrets
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            json.dump({"paths": paths, "values": values}, file)
        part.replace(path)


def _survives_json(values: Values) -> bool:
    """Whether JSON preserves the values. It does not preserve keys that are numbers, for example."""
    try:
        return bool(json.loads(json.dumps(values)) == values)
    except (TypeError, ValueError):
        return False


def _path(overrides: Sequence[str]) -> Path:
    """The file of the entry, named for the overrides, the working directory, the versions and Hydra's plugins."""
    versions = [version(name) for name in ("hydra-core", "omegaconf")]
    plugins = importlib.util.find_spec("hydra_plugins")  # they can add to the search path
    places = list(plugins.submodule_search_locations or ()) if plugins else []
    # A directory is there again each time that sys.path has it again, which Hydra changes while it composes.
    found = sorted({os.path.join(place, name) for place in places for name in os.listdir(place)})
    key = json.dumps([*versions, *found, str(Path(__file__).parent), os.getcwd(), *overrides])
    return cache_directory.path() / "compositions" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
