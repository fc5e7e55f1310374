"""What processes are told first: those that the executor starts on Ray, and the one that starts Ray."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

from stages.base import Resources

# Of Linux's prctl.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def prepare(resources: Resources) -> None:
    """Fit this process to its resources, and end it with its node. To be called before anything imports torch or numpy.

    Ray's workers look whether they were left to the system's first process. Where another adopts orphans (a desktop's
    session, a driver of ours) they would work on for a node that is gone; so on Linux the kernel ends them.
    """
    _tell_kernel(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, int(resources.cpus))))
    if not resources.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves every GPU of the node visible to those that asked none


def adopt_orphans() -> None:
    """Have what descends from this process become its child when its own parent dies: so that it can be ended.

    On Linux only; elsewhere such processes go to the system's first.
    """
    _tell_kernel(PR_SET_CHILD_SUBREAPER, 1)


def _tell_kernel(option: int, value: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
