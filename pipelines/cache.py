"""Where this machine keeps what only saves time: any of it may be deleted, and a directory that can't be written to
just saves nothing."""

from __future__ import annotations

import os
from pathlib import Path


def directory() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "bloomline"
