"""The start of a local Ray on a machine that is busy."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import ray

from cluster.base import ClusterError
from cluster.config import LocalCluster
from cluster.connection import START_TRIES, Connection

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (Exception("The current node timed out during startup. This could happen because ..."), START_TRIES),
        (ConnectionError("Failed to connect to GCS."), START_TRIES),
        (ValueError("no such resource"), 1),
    ],
)
def test_a_start_that_takes_ray_too_long_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int
) -> None:
    rays: list[subprocess.Popen[bytes]] = []
    others: list[subprocess.Popen[bytes]] = []

    def init(_temp_dir: str, **given: Any) -> None:
        """Leaves a process of Ray's, while another of the run was started."""
        rays.append(subprocess.Popen([*SLEEP, f"--temp-dir={_temp_dir}"]))
        others.append(subprocess.Popen(SLEEP))
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    connection = Connection(LocalCluster(cpus=1, gpus=0))
    try:
        with pytest.raises(ClusterError, match=r"Ray could not be started.*when the machine is less busy"):
            connection.wait()
        assert len(rays) == tries
        assert [one.poll() is None for one in rays] == [False] * (tries - 1) + [True]
        assert all(one.poll() is None for one in others)
    finally:
        connection.close()  # ends all of them
    for one in (*rays, *others):
        one.wait(10)  # raises an exception while it lives
