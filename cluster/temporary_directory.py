"""The directory of a Ray that is started here. What killed drivers left behind goes with a later start.

Not at once: a person may want to read the logs of a run that failed.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "bloomline-"
LONGEST = 40  # characters of a path: Ray makes Unix sockets below it, whose paths end at 107
KEPT_S = 86_400.0  # how long the directory of a driver that is gone stays
LOCK = "driver.lock"  # held as long as the driver lives, however it ends


class TemporaryDirectory:
    """A directory of this process, for a Ray of its own."""

    def __init__(self, base: Path | None = None) -> None:
        """Below `base`: the system's directory for such, or /tmp where that has too long a path."""
        usual = Path(tempfile.gettempdir())
        base = base or (usual if len(str(usual)) <= LONGEST - 18 else Path("/tmp"))
        _sweep(base)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        self._lock = FileLock(self.path / LOCK)
        self._lock.acquire()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


def _sweep(base: Path) -> None:
    """Remove directories of drivers that are gone for long. Another user's stay."""
    for directory in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, Timeout):
            lock = directory / LOCK
            if time.time() - lock.stat().st_mtime > KEPT_S:
                with FileLock(lock, blocking=False):
                    shutil.rmtree(directory, ignore_errors=True)
