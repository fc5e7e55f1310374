"""Runs a piece of work at most once: its output folder holds a marker that proves it complete.

The output is written into a temporary folder, every file is synced, then the marker is written with the length and the
SHA-256 of each file, then the folder is renamed to its final name. A killed worker leaves no folder with the final
name. A folder that was truncated or altered afterwards contradicts its marker, and the work is done again.
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
PARTIAL = ".part-"  # in the names of temporary folders


def run_once(output: Path, inputs: Mapping[str, Any], work: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """Call `work(folder)` to fill `output`, unless that was done from the same `inputs`; returns its facts (JSON)."""
    found = completed_facts(output, inputs)
    if found is not None:
        return found
    partial = output.with_name(f"{output.name}{PARTIAL}{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        facts = dict(work(partial))
        files = {path.name: [path.stat().st_size, _synced_digest(path)] for path in sorted(partial.iterdir())}
        marker = partial / MARKER
        content = json.dumps({"inputs": dict(inputs), "files": files, "facts": facts})
        marker.write_text(json.dumps({"sha256": hashlib.sha256(content.encode()).hexdigest(), "content": content}))
        _synced_digest(marker)
        _move(partial, output)
        return facts
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def completed_facts(output: Path, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The facts of the work that filled `output` from these inputs; None if it is to be done (again)."""
    try:
        if (output / MARKER).stat().st_size > MARKER_LIMIT_BYTES:
            return None
        outer = json.loads((output / MARKER).read_bytes())
        if hashlib.sha256(outer["content"].encode()).hexdigest() != outer["sha256"]:
            return None
        marker = json.loads(outer["content"])
        if marker["inputs"] != json.loads(json.dumps(dict(inputs))):
            return None
        for name, (size, digest) in marker["files"].items():
            if (output / name).stat().st_size != size or _digest(output / name) != digest:
                return None
        facts: dict[str, Any] = marker["facts"]
        return facts
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remove_partial_folders(folder: Path) -> None:
    """Remove the temporary folders of killed workers. No worker may be running."""
    for left in folder.glob(f"*{PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True)


def _move(partial: Path, output: Path) -> None:
    """Rename the folder to its final name, and replace what is there."""
    if output.exists():
        # Incomplete, made from other inputs, or written just now by a worker that was believed lost: the same content.
        shutil.rmtree(output, ignore_errors=True)
    os.rename(partial, output)
    descriptor = os.open(output.parent, os.O_RDONLY)
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
