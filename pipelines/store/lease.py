"""Leases: if two runs need the same artifact, one computes it and the other waits.

A lease is a small file with its holder and a heartbeat. It ends by release, or when its holder is seen to be gone: at
once if that was a process of this machine, else when the heartbeat has not moved for the timeout, by the waiter's own
clock. Should two runs hold one by a rare race on an object store, both compute the same thing and the later record
stands: leases save work, correctness does not rest on them.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from typing import Any

from pipelines.process_identity import is_gone, this_process
from pipelines.store.files import Files

GAP_S = 5.0  # between two looks at a lease, at the least, before the store is taken to have been out of reach


class Leases:
    """The leases of one run, kept alive by a thread while any is held."""

    def __init__(self, files: Files, timeout_s: float, run_id: str, user: str = "") -> None:
        self._files = files
        self._timeout_s = timeout_s
        self._holder = {"holder": uuid.uuid4().hex, "run": run_id, "user": user, **this_process()}
        self._held: set[str] = set()
        # Of others': content, when it was first seen so, when it was last seen so.
        self._seen: dict[str, tuple[bytes, float, float]] = {}
        self._beat = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, fingerprint: str) -> str | None:
        """Try to take the lease. None if this run has it now, else a text that names the holder."""
        if fingerprint in self._held:
            return None
        content = self._files.read(_path(fingerprint))
        if content is not None:
            if not self._is_dead(fingerprint, content):
                return _describe(content)
            self._files.remove(_path(fingerprint))
        if not self._files.create(_path(fingerprint), self._content()):
            return _describe(self._files.read(_path(fingerprint)) or b"{}")
        with self._lock:
            self._held.add(fingerprint)
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="leases", daemon=True)
                self._thread.start()
        return None

    def release(self, fingerprint: str) -> None:
        with self._lock:
            if fingerprint not in self._held:
                return
            self._held.discard(fingerprint)
            # A lease that can't be removed expires: it has no heartbeat any more.
            with contextlib.suppress(OSError):
                if self._is_ours(fingerprint):
                    self._files.remove(_path(fingerprint))

    def close(self) -> None:
        """Release every lease that is held."""
        self._closed.set()
        for fingerprint in list(self._held):
            self.release(fingerprint)

    def _is_ours(self, fingerprint: str) -> bool:
        """False once another run has taken the lease over, for example while this one was suspended."""
        content = _parse(self._files.read(_path(fingerprint)) or b"{}")
        return bool(content.get("holder") == self._holder["holder"])

    def _is_dead(self, fingerprint: str, content: bytes) -> bool:
        if is_gone(_parse(content)):
            return True
        seen, since, last = self._seen.get(fingerprint, (b"", 0.0, 0.0))
        now = time.monotonic()
        # After a gap the store may have been out of reach, also for the holder's heartbeat: the time is counted again.
        if seen != content or now - last > max(self._timeout_s / 2, GAP_S):
            since = now
        self._seen[fingerprint] = (content, since, now)
        return now - since > self._timeout_s

    def _content(self) -> bytes:
        return json.dumps({**self._holder, "beat": self._beat}).encode()

    def _keep(self) -> None:
        while not self._closed.wait(self._timeout_s / 5):
            with self._lock:
                self._beat += 1
                for fingerprint in self._held:
                    # A store that is unreachable for a moment must not end the run.
                    with contextlib.suppress(OSError):
                        if self._is_ours(fingerprint):
                            self._files.write(_path(fingerprint), self._content())


def holder(files: Files, name: str) -> dict[str, Any]:
    """The identity of the process that holds the lease of that file name; empty if it is not known."""
    return _parse(files.read(f"leases/{name}") or b"{}")


def _path(fingerprint: str) -> str:
    return f"leases/{fingerprint}.json"


def _parse(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _describe(content: bytes) -> str:
    found = _parse(content)
    user = f" of {found['user']}" if found.get("user") else ""
    host = str(found.get("host", "?")).split("/")[0]
    return f"run {found.get('run', '?')}{user} (process {found.get('pid', '?')} on {host})"
