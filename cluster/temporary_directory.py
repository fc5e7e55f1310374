"""The temporary directory of a Ray cluster that is started here. A later start removes those of killed drivers.

They are kept for a day, because someone may want to read the logs of a run that failed.

Ray makes its directory, with its sockets and logs, writable by every user of the machine: whoever replaces a socket
would be taken for Ray by the next process. Ray's directory is therefore inside one that only this user can enter.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

from cluster.base import ClusterError

PREFIX = "bloomline-"
RAY = "r"  # the name of Ray's directory. It is short, because Ray creates Unix sockets below it
LONGEST_BASE = 22  # bytes: the paths of the sockets are 85 longer, and limited to 107
KEPT_S = 86_400.0  # how long the directory of a driver that has ended is kept
LOCK = "driver.lock"  # held as long as the driver runs, however it ends


class TemporaryDirectory:
    """A directory that belongs to this process, for the Ray cluster that it starts."""

    def __init__(self, base: Path | None = None) -> None:
        """Create it below `base`. The default is the system's temporary directory, or /tmp if its path is too long.

        Raises ClusterError if other users could replace the directory.
        """
        default = Path(tempfile.gettempdir())
        base = base or (default if len(os.fsencode(default)) <= LONGEST_BASE else Path("/tmp"))
        _expect_safe(base)
        _sweep(base)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))  # with mode 0700, which nothing changes later
        self.ray = self.path / RAY
        self._lock = FileLock(self.path / LOCK)
        self._lock.acquire()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


def _expect_safe(base: Path) -> None:
    """Raise ClusterError if another user could rename a directory in `base` or above it, and put one in its place."""
    for directory in (base, *base.resolve().parents):
        mode = directory.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise ClusterError(
                f"Ray can't be started with temporary files in {base}: other users can replace what is in {directory}. "
                f"Set TMPDIR to a directory of yours, or run: chmod +t {directory}"
            )


def _sweep(base: Path) -> None:
    """Remove the directories of drivers of this user that ended long ago.

    Nothing in a directory of another user is opened: a lock could be a link to a file of this user's.
    """
    for directory in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, Timeout):
            found = directory.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            lock = directory / LOCK
            if time.time() - lock.stat().st_mtime > KEPT_S:
                with FileLock(lock, blocking=False):
                    shutil.rmtree(directory, ignore_errors=True)
