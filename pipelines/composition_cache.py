"""Caches what Hydra composed, so that a plan of an unchanged configuration need not import Hydra or parse YAML.

An entry holds for exactly the same overrides and working directory as long as every YAML file below every directory
that the composition searched, and every environment variable that they name, is as it was. Losing the cache costs
time only. What a composition can't be repeated from (the time, Hydra's own run values, a package that is not ours) is
never remembered.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines import cache_directory

ENVIRONMENT = re.compile(r"\$\{oc\.env:\s*([A-Za-z_][A-Za-z0-9_]*)")
UNREPEATABLE = re.compile(r"\$\{(now|hydra|random)\b")

Values = Mapping[str, Any]


def load(overrides: Sequence[str]) -> Values | None:
    """The cached values of these overrides, if nothing that they depend on has changed."""
    try:
        entry = json.loads(_path(overrides).read_bytes())
        texts = _texts(entry["directories"])
        if entry["digest"] == _digest(texts, overrides):
            values: Values = entry["values"]
            return values
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def save(overrides: Sequence[str], directories: Sequence[Path] | None, values: Values) -> None:
    """Remember a composition. `directories`: all that it searched, or None if they are not known."""
    if directories is None:
        return
    texts = _texts([str(directory) for directory in directories])
    if any(UNREPEATABLE.search(text) for text in [*texts, *overrides]) or not _survives_json(values):
        return
    entry = {"directories": [str(path) for path in directories], "digest": _digest(texts, overrides), "values": values}
    path = _path(overrides)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with contextlib.suppress(OSError):  # without a writable home it is composed again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(entry))
        part.replace(path)


def _survives_json(values: Values) -> bool:
    """Whether JSON preserves the values. It does not preserve keys that are numbers, for example."""
    try:
        return bool(json.loads(json.dumps(values)) == values)
    except (TypeError, ValueError):
        return False


def _path(overrides: Sequence[str]) -> Path:
    """The file of the entry, named for the overrides, the working directory and the versions."""
    versions = [version(name) for name in ("hydra-core", "omegaconf")]
    key = json.dumps([*versions, str(Path(__file__).parent), os.getcwd(), *overrides])
    return cache_directory.path() / "compositions" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _texts(directories: Sequence[str]) -> list[str]:
    """Name and content of every YAML file below the directories, in a fixed order."""
    return [
        f"{path.relative_to(directory)}\n{path.read_text()}"
        for directory in directories
        for path in sorted(Path(directory).rglob("*.yaml"))
    ]


def _digest(texts: Sequence[str], overrides: Sequence[str]) -> str:
    """Digest of everything that a composition depends on: the texts and the environment variables that they name."""
    names = sorted({name for text in [*texts, *overrides] for name in ENVIRONMENT.findall(text)})
    content = json.dumps([*texts, [[name, os.environ.get(name)] for name in names]])
    return hashlib.sha256(content.encode()).hexdigest()
