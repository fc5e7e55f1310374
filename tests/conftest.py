"""Fixtures of the whole suite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cluster.session import RayExecutor


@pytest.fixture(scope="session")
def ray_session() -> Iterator[RayExecutor]:
    """The suite's one Ray, with 2 CPUs, as an executor. Whatever else connects in this process shares it.

    A test that uses it is marked `ray`, and leaves nothing running in it.
    """
    from cluster.config import LocalCluster, executor

    with executor(LocalCluster(cpus=2, gpus=0, placement_timeout_s=30)) as started:
        started._connection.wait()
        yield started
