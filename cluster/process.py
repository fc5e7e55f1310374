"""What every process that the executor starts on Ray does first."""

from __future__ import annotations

import os

from stages.base import Resources


def prepare(resources: Resources) -> None:
    """Fit this process to its resources. To be called before anything imports torch or numpy."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, int(resources.cpus))))
    if not resources.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves every GPU of the node visible to those that asked none
