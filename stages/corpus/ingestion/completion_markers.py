"""Work that is done at most once, and never taken for done when it is not: a folder a piece, with a marker in it.

A piece is written into a folder of its own, every file synced, then the marker with length and hash of each; then the
folder is renamed to its place. A killed worker leaves no folder in place; one that was cut short or altered afterwards
is noticed by its marker, and done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MARKER = "finished.json"
MARKER_LIMIT_BYTES = 64 << 20
ASIDE = ".part-"


def finish(place: Path, inputs: Mapping[str, Any], work: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """What `work(folder)` returned (JSON values) when it filled `place`, now or earlier from the same `inputs`."""
    found = finished(place, inputs)
    if found is not None:
        return found
    aside = place.with_name(f"{place.name}{ASIDE}{uuid.uuid4().hex[:8]}")
    aside.mkdir(parents=True)
    try:
        facts = dict(work(aside))
        files = {path.name: [path.stat().st_size, _synced_digest(path)] for path in sorted(aside.iterdir())}
        marker = aside / MARKER
        content = json.dumps({"inputs": dict(inputs), "files": files, "facts": facts})
        marker.write_text(json.dumps({"sha256": hashlib.sha256(content.encode()).hexdigest(), "content": content}))
        _synced_digest(marker)
        _take_place(aside, place)
        return facts
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def finished(place: Path, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the work returned that filled `place` from these inputs; None if it must be done (again)."""
    try:
        if (place / MARKER).stat().st_size > MARKER_LIMIT_BYTES:
            return None
        outer = json.loads((place / MARKER).read_bytes())
        if hashlib.sha256(outer["content"].encode()).hexdigest() != outer["sha256"]:
            return None
        marker = json.loads(outer["content"])
        if marker["inputs"] != json.loads(json.dumps(dict(inputs))):
            return None
        for name, (size, digest) in marker["files"].items():
            if (place / name).stat().st_size != size or _digest(place / name) != digest:
                return None
        facts: dict[str, Any] = marker["facts"]
        return facts
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def clear_leftovers(folder: Path) -> None:
    """Remove what killed workers left. To be called while nobody works there."""
    for left in folder.glob(f"*{ASIDE}*"):
        shutil.rmtree(left, ignore_errors=True)


def _take_place(aside: Path, place: Path) -> None:
    """Move the folder to its place, instead of whatever is there."""
    if place.exists():
        # Not whole, or of other inputs; or just put there by a worker that was thought lost: the same content then.
        shutil.rmtree(place, ignore_errors=True)
    os.rename(aside, place)
    descriptor = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _synced_digest(path: Path) -> str:
    with path.open("r+b", buffering=0) as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
