"""What is said while a cluster opens."""

from __future__ import annotations

import pytest

from cluster.config import ClusterConfig, InlineCluster, LocalCluster, RemoteCluster
from pipelines import session
from pipelines.session import Session


class Closed:
    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (LocalCluster(), "Starting Ray on this machine ...\n"),
        (RemoteCluster(address="10.0.0.1:6379"), "Joining the Ray cluster at 10.0.0.1:6379 ...\n"),
        (InlineCluster(), ""),
    ],
)
def test_a_cluster_that_takes_seconds_to_open_says_so_once(
    config: ClusterConfig, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[Closed] = []

    def opens(*given: object, **named: object) -> Closed:
        opened.append(Closed())
        return opened[-1]

    monkeypatch.setattr(session, "executor", opens)
    with Session() as one:
        one.executor(config, ())
        one.executor(config, ())
    assert capsys.readouterr().err == said
    assert len(opened) == 1


def test_what_needs_no_ray_says_nothing_and_ray_is_started_once_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[bool] = []

    def opens(*given: object, spawns: bool, preload: object) -> Closed:
        opened.append(spawns)
        return Closed()

    monkeypatch.setattr(session, "executor", opens)
    with Session() as one:
        one.executor(LocalCluster(), (), spawns=False)
        assert capsys.readouterr().err == ""
        one.executor(LocalCluster(), (), spawns=True)
        one.executor(LocalCluster(), (), spawns=False)  # on the Ray that is there
    assert capsys.readouterr().err == "Starting Ray on this machine ...\n"
    assert opened == [False, True]
