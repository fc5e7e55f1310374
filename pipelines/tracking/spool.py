"""Operations for MLflow that were not sent yet, on disk. Each of them can be repeated safely.

    runs/RUN/spool/target             the MLflow that it is for: "local", or the server's address
                   operations.jsonl   appended by the driver; an incomplete last line is ignored
                   files/             figures and reports, copied: the originals move when a step is committed
                   sent.json          how far the sender got, and the ids that MLflow gave
                   refused.jsonl      what MLflow rejected permanently, with the reason
                   lock               held as long as a process works on this spool

The folder is removed once everything is sent. A folder that no process holds was left by a driver that ended, or by a
run during which MLflow was unreachable. The next start with the same target sends it.

A store may be shared, and what a spool holds is published: only regular files below its own folder are read, no link is
followed, and a folder or file of another user is left alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

from filelock import FileLock, Timeout

from pipelines.store.json_values import plain

Operation = dict[str, Any]
LOCAL = "local"  # the target of a spool for the database in the same store


class Spool:
    """The operations of one run. Appended by any thread; read and acknowledged by one."""

    def __init__(self, directory: Path, lock: FileLock, target: str) -> None:
        self.directory = directory
        self._lock = lock
        if not (directory / "target").exists():
            (directory / "target").write_text(target, encoding="utf-8")
        self._log = directory / "operations.jsonl"
        self.doubtful = self._log.exists()  # whether MLflow may have received operations that are not acknowledged
        self._append = threading.Lock()
        self._files = 0
        state = self._read_state()
        self.offset: int = state["offset"]
        self.ids: dict[str, Any] = state["ids"]

    @classmethod
    def open(cls, directory: Path, target: str = LOCAL) -> Self | None:
        """The spool in `directory`, created if necessary; None while another process holds it. Raises OSError.

        `target`: of a new one, which MLflow it is for.
        """
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / "lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return cls(directory, lock, target)

    def append(self, operation: Operation) -> None:
        """Add one operation. It survives the death of this process, though not of the machine: no fsync."""
        line = json.dumps(plain(operation)).encode() + b"\n"
        with self._append, open(self._log, "ab", buffering=0) as log:
            log.write(line)

    def keep(self, path: Path) -> str:
        """Copy a file into the spool; the name to put into an operation."""
        with self._append:
            self._files += 1
            name = f"{self._files}/{path.name}"
        target = self.directory / "files" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        return name

    def read(self, name: str) -> bytes:
        """A kept file. Raises OSError, also for whatever is not a regular file of this user below this folder."""
        with _open(self.directory / "files", name) as file:
            return file.read()

    def unsent(self, limit: int = 2000) -> list[tuple[Operation, int]]:
        """The next operations, each with the offset behind it. An unreadable line counts as an empty operation."""
        return list(self._lines(limit))

    def acknowledge(self, offset: int) -> None:
        """Record that MLflow has received everything before `offset`. Also saves `ids`."""
        self.offset = offset
        temporary = self.directory / "sent.json.tmp"
        temporary.write_text(json.dumps({"offset": offset, "ids": self.ids}))
        os.replace(temporary, self.directory / "sent.json")

    def refuse(self, operation: Operation, reason: str) -> None:
        """Set aside an operation that MLflow rejected permanently."""
        with open(self.directory / "refused.jsonl", "a") as file:
            file.write(json.dumps({"reason": reason, "operation": operation}, default=str) + "\n")

    def pending(self) -> int:
        """How many operations are still to be sent."""
        return sum(1 for _ in self._lines(None))

    def close(self) -> None:
        """Release the spool. Remove it if everything was sent and nothing was rejected."""
        if self.pending() == 0 and not (self.directory / "refused.jsonl").exists():
            shutil.rmtree(self.directory, ignore_errors=True)
        self._lock.release()

    def _lines(self, limit: int | None) -> Iterator[tuple[Operation, int]]:
        if not self._log.exists():
            return
        offset = self.offset
        with _open(self.directory, self._log.name) as log:
            log.seek(offset)
            for count, line in enumerate(log):
                if not line.endswith(b"\n") or count == limit:
                    return
                offset += len(line)
                try:
                    operation = json.loads(line)
                except ValueError:
                    operation = None
                yield operation if isinstance(operation, dict) else {}, offset

    def _read_state(self) -> dict[str, Any]:
        try:
            with _open(self.directory, "sent.json") as file:
                state = json.load(file)
            return {"offset": int(state["offset"]), "ids": dict(state["ids"])}
        except (OSError, ValueError, KeyError, TypeError):
            return {"offset": 0, "ids": {}}


def leftovers(root: Path, target: str = LOCAL) -> Iterator[Spool]:
    """The spools under `root` for this target that nobody holds and that have something to send.

    The caller closes them.
    """
    for directory in _spools(root):
        if _refusal(directory) or _target(directory) != target:
            continue
        spool = Spool.open(directory)
        if spool is None:
            continue
        if spool.pending():
            yield spool
        else:
            spool.close()


def waiting(root: Path, target: str, since_s: float) -> int:
    """How many spools under `root` for this target nobody holds, nor has written to for `since_s` seconds."""
    latest = time.time() - since_s
    return sum(
        not _refusal(directory)
        and (log := (directory / "operations.jsonl").stat()).st_size > 0
        and log.st_mtime < latest
        and _target(directory) == target
        and not _is_held(directory)
        for directory in _spools(root)
    )


def set_aside(root: Path, target: str) -> list[str]:
    """What under `root` is not sent to this target, and why, as sentences."""
    said: list[str] = []
    waiting: Counter[str] = Counter()
    for directory in _spools(root):
        if (refusal := _refusal(directory)) and not _is_held(directory):
            said.append(f"The tracking of another run in {directory} was not sent: {refusal}.")
        elif not refusal and (other := _target(directory)) != target:
            waiting[other] += 1
    for other, runs in sorted(waiting.items()):
        how = "tracking=local" if other == LOCAL else f"tracking=server tracking.uri={other}"
        said.append(f"The tracking of {runs} earlier run{'s' if runs > 1 else ''} waits for a run with {how}.")
    return said


def _spools(root: Path) -> list[Path]:
    return [log.parent for log in sorted(root.glob("runs/*/spool/operations.jsonl"))]


def _refusal(directory: Path) -> str:
    """Why a spool is not to be read; "" if nothing speaks against it."""
    try:
        with _open(directory.parent, f"{directory.name}/operations.jsonl"):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _is_held(directory: Path) -> bool:
    """Whether a process works on a spool, also that of another user: then it isn't left behind."""
    try:
        handle = os.open(directory / "lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _target(directory: Path) -> str:
    """The target of a spool. One without a readable target is sent nowhere but into the local database."""
    try:
        with _open(directory, "target") as file:
            return file.read(4096).decode("utf-8", "replace").strip()
    except OSError:
        return LOCAL


def _open(directory: Path, name: str) -> IO[bytes]:
    """A regular file below a directory, both of this user. No link is followed, also not if one is put there meanwhile.

    Raises OSError.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise PermissionError(None, f"{name!r} is not below the folder")
    handle = _own(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW), directory)
    for place, part in enumerate(parts):
        kind = os.O_DIRECTORY if place + 1 < len(parts) else os.O_NONBLOCK  # to open a pipe must not wait for a writer
        try:
            found = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | kind, dir_fd=handle)
        finally:
            os.close(handle)
        handle = _own(found, directory / name)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise PermissionError(None, f"{directory / name} is not a regular file")
    return os.fdopen(handle, "rb")


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _own(handle: int, path: Path) -> int:
    """The handle, if its file belongs to this user, else it is closed. Raises PermissionError."""
    if (owner := os.fstat(handle).st_uid) != os.geteuid():
        os.close(handle)
        raise PermissionError(None, f"{path} belongs to user {_user_name(owner)}")
    return handle
