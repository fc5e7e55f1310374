"""Which process is this, and is that one gone? Told by host, boot, process id and start time together, since process
ids are given out again. Used by leases and by the tracking, to clear up after a driver that was killed."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import cache
from typing import Any

import psutil


@cache
def this_process() -> dict[str, Any]:
    """The identity of this process, as JSON values."""
    return {"host": _host(), "pid": os.getpid(), "started": round(psutil.Process().create_time(), 2)}


def is_gone(identity: Mapping[str, Any]) -> bool:
    """True if the process ran on this machine and is no more; False if it lives, or if we can't tell from here."""
    if identity.get("host") != _host():
        return False
    try:
        process = psutil.Process(int(identity["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        return bool(abs(process.create_time() - float(identity["started"])) > 1)
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


@cache
def _host() -> str:
    """The machine and its boot: a process of before a reboot is gone, whatever now has its id."""
    return f"{socket.gethostname()}/{int(psutil.boot_time())}"
