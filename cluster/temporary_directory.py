"""The temporary directory of a Ray cluster that is started here. A later start removes those of killed drivers.

They are kept for a day, because someone may want to read the logs of a run that failed.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "bloomline-"
LONGEST = 40  # characters: Ray creates Unix sockets below it, whose paths are limited to 107
KEPT_S = 86_400.0  # how long the directory of a driver that has ended is kept
LOCK = "driver.lock"  # held as long as the driver runs, however it ends


class TemporaryDirectory:
    """A directory that belongs to this process, for the Ray cluster that it starts."""

    def __init__(self, base: Path | None = None) -> None:
        """Create it below `base`. The default is the system's temporary directory, or /tmp if its path is too long."""
        default = Path(tempfile.gettempdir())
        base = base or (default if len(str(default)) <= LONGEST - 18 else Path("/tmp"))
        _sweep(base)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        self._lock = FileLock(self.path / LOCK)
        self._lock.acquire()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


def _sweep(base: Path) -> None:
    """Remove the directories of drivers that ended long ago. Those of other users stay."""
    for directory in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, Timeout):
            lock = directory / LOCK
            if time.time() - lock.stat().st_mtime > KEPT_S:
                with FileLock(lock, blocking=False):
                    shutil.rmtree(directory, ignore_errors=True)
