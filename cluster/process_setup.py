"""Sets up the processes that run work on Ray, and the process that starts Ray."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading

from cluster.submitted_job import PROJECT_VARIABLE, take_forwarded_environment
from stages.base import Resources
from stages.child_environment import forget_keys

# Options of Linux's prctl.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# Held while the environment of this process is not its own, which a starting cluster inherits.
ENVIRONMENT_LOCK = threading.RLock()


def prepare(resources: Resources) -> None:
    """Limit this process to its resources, and end it with its node. Call it before torch or numpy is imported.

    A worker of Ray ends when its parent is the system's first process. If another process adopts orphans (a desktop
    session, our own driver) it would continue to run after its node is gone, so on Linux the kernel ends it.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    take_forwarded_environment()
    enter_project()
    forget_keys()  # of a cluster that was started with them, or of the driver of a submitted job
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, int(resources.cpus))))
    if not resources.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = (
            ""  # by default Ray leaves all GPUs of the node visible to a process without GPUs
        )


def enter_project() -> None:
    """In a process of a submitted job, change to the copy of the user's directory."""
    if os.path.isdir(project := os.environ.get(PROJECT_VARIABLE, "")):  # not if this process has entered it before
        os.chdir(project)


def adopt_orphans() -> None:
    """Make this process the new parent of its descendants whose parent dies, so that it can end them.

    On Linux only; elsewhere the system's first process becomes their parent.
    """
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
