"""Fixtures of the whole suite."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from cluster.ray_executor import RayExecutor

# How long examples take says something of the machine only. All else is hypothesis's own, which depends on CI=1.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """If several workers run the suite (`-n 2 --dist loadgroup`), all tests of one Ray run in one worker."""
    for item in items:
        if item.get_closest_marker("ray"):
            own = "end_to_end" in item.path.parts  # those start a Ray of their own
            item.add_marker(pytest.mark.xdist_group("own_ray" if own else "suite_ray"))


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Restores the default handlers of SIGINT and SIGHUP, which a suite that was started in the background or under
    nohup, and its children, would ignore."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _cache_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The suite has its own cache directory, shared by its processes."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
        yield


@pytest.fixture(scope="session")
def ray_session() -> Iterator[RayExecutor]:
    """The suite's one Ray, with 2 CPUs, as an executor. Whatever else connects in this process shares it.

    A test that uses it is marked `ray`, and leaves nothing running in it.
    """
    from cluster.config import LocalCluster
    from cluster.factory import executor
    from cluster.ray_executor import RayExecutor

    with executor(LocalCluster(cpus=2, gpus=0, placement_timeout_s=30)) as started:
        assert isinstance(started, RayExecutor)
        started._connection.wait()
        yield started
