"""Operations for MLflow that were not sent yet, on disk. Each of them can be repeated safely.

    runs/RUN/spool/operations.jsonl   appended by the driver; an incomplete last line is ignored
                   files/             figures and reports, copied: the originals move when a step is committed
                   sent.json          how far the sender got, and the ids that MLflow gave
                   refused.jsonl      what MLflow rejected permanently, with the reason
                   lock               held as long as a process works on this spool

The folder is removed once everything is sent. A folder that no process holds was left by a driver that ended, or by a
run during which MLflow was unreachable. The next start sends it.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

Operation = dict[str, Any]


class Spool:
    """The operations of one run. Appended by any thread; read and acknowledged by one."""

    def __init__(self, directory: Path, lock: FileLock) -> None:
        self.directory = directory
        self._lock = lock
        self._log = directory / "operations.jsonl"
        self.doubtful = self._log.exists()  # whether MLflow may have received operations that are not acknowledged
        self._append = threading.Lock()
        self._files = 0
        state = self._read_state()
        self.offset: int = state["offset"]
        self.ids: dict[str, Any] = state["ids"]

    @classmethod
    def open(cls, directory: Path) -> Self | None:
        """The spool in `directory`, created if necessary; None while another process holds it. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / "lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return cls(directory, lock)

    def append(self, operation: Operation) -> None:
        """Add one operation. It survives the death of this process, though not of the machine: no fsync."""
        line = json.dumps(operation, default=str).encode() + b"\n"
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

    def file(self, name: str) -> Path:
        """Where a kept file is."""
        return self.directory / "files" / name

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
        with open(self._log, "rb") as log:
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
            state = json.loads((self.directory / "sent.json").read_text())
            return {"offset": int(state["offset"]), "ids": dict(state["ids"])}
        except (OSError, ValueError, KeyError, TypeError):
            return {"offset": 0, "ids": {}}


def leftovers(root: Path) -> Iterator[Spool]:
    """The spools under `root` that nobody holds and that have something to send. The caller closes them."""
    for log in sorted(root.glob("runs/*/spool/operations.jsonl")):
        spool = Spool.open(log.parent)
        if spool is None:
            continue
        if spool.pending():
            yield spool
        else:
            spool.close()
