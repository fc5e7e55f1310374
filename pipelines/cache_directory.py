"""The directory of caches on this machine. Any of them may be deleted, and an unwritable directory is not an error."""

from __future__ import annotations

import os
from pathlib import Path


def path() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "bloomline"
