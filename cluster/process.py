"""What processes are told first: those that the executor starts on Ray, and the one that starts Ray."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

from stages.base import Resources

PR_SET_CHILD_SUBREAPER = 36  # of Linux's prctl


def prepare(resources: Resources) -> None:
    """Fit this process to its resources. To be called before anything imports torch or numpy."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, int(resources.cpus))))
    if not resources.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves every GPU of the node visible to those that asked none


def adopt_orphans() -> None:
    """Have what descends from this process become its child when its own parent dies: so that it can be ended.

    On Linux only; elsewhere such processes go to the system's first.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
