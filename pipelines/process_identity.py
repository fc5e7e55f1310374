"""Identifies processes, so that leases and the tracking can clean up after a driver that was killed.

Process ids are reused, so a process is identified by its host, boot, process id and start time together.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psutil


@cache
def this_process() -> dict[str, Any]:
    """The identity of this process, as JSON values."""
    return {"host": _host(), "pid": os.getpid(), "started": round(_started(psutil.Process()), 2)}


def is_gone(identity: Mapping[str, Any]) -> bool:
    """True if the process ran on this machine and has ended; False if it is alive, or if that is not known here."""
    if identity.get("host") != _host():
        return False
    try:
        process = psutil.Process(int(identity["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        return bool(abs(_started(process) - float(identity["started"])) > 1)
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


@cache
def _host() -> str:
    """The machine, its boot, and on Linux the container: a process id means something only within all three.

    On Linux a boot is identified by an id, because the boot time changes when the clock is set.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}/{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return f"{socket.gethostname()}/{int(psutil.boot_time())}"


def _started(process: psutil.Process) -> float:
    """Seconds from the boot to the start of a process, independent of changes of the clock."""
    return float(process.create_time() - psutil.boot_time())
