"""Fixtures of the whole suite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cluster.session import RayExecutor


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where workers share the suite (`-n 2 --dist loadgroup`), tests of one Ray go to one worker."""
    for item in items:
        if item.get_closest_marker("ray"):
            own = "end_to_end" in item.path.parts  # those start a Ray of their own
            item.add_marker(pytest.mark.xdist_group("own_ray" if own else "suite_ray"))


@pytest.fixture(scope="session")
def ray_session() -> Iterator[RayExecutor]:
    """The suite's one Ray, with 2 CPUs, as an executor. Whatever else connects in this process shares it.

    A test that uses it is marked `ray`, and leaves nothing running in it.
    """
    from cluster.config import LocalCluster, executor

    with executor(LocalCluster(cpus=2, gpus=0, placement_timeout_s=30)) as started:
        started._connection.wait()
        yield started
