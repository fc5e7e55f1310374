"""Processes other than the driver have no keys."""

from __future__ import annotations

import os

import pytest

from cluster.config import LocalCluster
from stages.child_environment import DRIVER_ONLY, child_environment, forget_keys


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DRIVER_ONLY:
        monkeypatch.setenv(name, "a key")


def test_a_child_gets_everything_else_and_what_is_changed() -> None:
    expected = {name: value for name, value in os.environ.items() if value != "a key"} | {"PYTHONPATH": "here"}
    assert child_environment({"PYTHONPATH": "here"}) == expected
    assert all(name in os.environ for name in DRIVER_ONLY)


def test_a_process_that_is_not_the_driver_forgets_them() -> None:
    forget_keys()
    assert not any(name in os.environ for name in DRIVER_ONLY)


def test_a_starting_ray_has_no_keys() -> None:
    connection = pytest.importorskip("cluster.connection")
    with connection._environment(connection._local_environment("", LocalCluster())):
        assert not any(name in os.environ for name in DRIVER_ONLY)
    assert all(os.environ[name] == "a key" for name in DRIVER_ONLY)
