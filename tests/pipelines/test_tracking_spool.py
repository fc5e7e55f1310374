"""The spool: what one MLflow is to receive goes to no other, and nothing but the spool's own files is published."""

from __future__ import annotations

import json
import os
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest

from cluster.base import Message
from pipelines.tracking.leftovers import flush
from pipelines.tracking.mlflow_connection import Connection
from pipelines.tracking.spool import Spool, leftovers, set_aside
from pipelines.tracking.tracker import Tracking
from pipelines.tracking.tracking_config import TrackingConfig
from tests.pipelines import samples
from tests.pipelines.test_tracking import LOCAL, client, runs_of

pytestmark = pytest.mark.usefixtures("eager_tracking")

NOWHERE = TrackingConfig(kind="server", uri="http://127.0.0.1:9", request_timeout_s=1, close_timeout_s=1)


@pytest.fixture
def root(tmp_path: Path, empty_database: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    copyfile(empty_database, root / "mlflow.db")
    return root


def left(root: Path, config: TrackingConfig, run_id: str, tmp_path: Path) -> Path:
    """What a run leaves that could send nothing."""
    spool = Spool.open(root / "runs" / run_id / "spool", config.target)
    assert spool is not None
    sample = samples.run(tmp_path, run_id=run_id)
    tracking = Tracking(config, root, spool)
    samples.replay(tracking, sample)
    spool._lock.release()
    return spool.directory


def test_a_spool_is_sent_to_its_own_target_only(root: Path, tmp_path: Path) -> None:
    left(root, NOWHERE, "for-the-server", tmp_path)
    left(root, LOCAL, "for-here", tmp_path)
    notes = flush(LOCAL, root)
    assert "tracking=server tracking.uri=http://127.0.0.1:9" in notes[1]
    assert "for-here" in runs_of(client(root))
    assert "for-the-server" not in runs_of(client(root))
    assert [spool.directory.parent.name for spool in leftovers(root, NOWHERE.target)] == ["for-the-server"]
    assert list(leftovers(root, "http://127.0.0.1:10")) == []


def test_an_earlier_run_in_an_experiment_of_another_user_waits_and_holds_up_no_other(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import RestException

    left(root, LOCAL.model_copy(update={"experiment": "theirs"}), "run-1", tmp_path)
    left(root, LOCAL.model_copy(update={"experiment": "ours"}), "run-2", tmp_path)
    experiment = Connection.experiment

    def permitted(self: Connection, name: str, description: str = "") -> str:
        if name == "theirs":
            raise RestException({"error_code": "PERMISSION_DENIED", "message": "no"})  # type: ignore[no-untyped-call]
        return experiment(self, name, description)

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "experiment", permitted)
        sent, waits = flush(LOCAL, root)
    assert sent.startswith("Sent ")
    assert waits.startswith("The tracking of the earlier run run-1 waits: ")
    assert "to write to the experiment 'theirs'" in waits
    assert "run-2" in runs_of(client(root))
    assert "run-1" not in runs_of(client(root))
    (sent,) = flush(LOCAL, root)  # once it is permitted
    assert sent.startswith("Sent ")
    assert not list(root.glob("runs/*/spool"))


@pytest.mark.parametrize("same", ["http://h:1", "http://h:1/", "http://H:1"])
def test_one_server_is_one_target(same: str) -> None:
    assert TrackingConfig(kind="server", uri=same).target == "http://h:1"


def test_a_moved_store_sends_what_it_was_left(root: Path, tmp_path: Path) -> None:
    left(root, LOCAL, "for-here", tmp_path)
    moved = root.rename(tmp_path / "elsewhere")
    assert flush(LOCAL, moved)[0].startswith("Sent ")


@pytest.mark.parametrize("how", ["absolute", "upward", "link", "link to a folder", "pipe", "folder", "missing"])
def test_no_file_outside_of_the_spool_is_published(root: Path, tmp_path: Path, how: str) -> None:
    secret = tmp_path / "secret" / "key.pem"
    secret.parent.mkdir()
    secret.write_text("secret")
    spool = left(root, LOCAL, "planted", tmp_path)
    name = {"absolute": str(secret), "upward": "../../../../../secret/key.pem"}.get(how, "9/key.pem")
    (spool / "files" / "9").mkdir(parents=True)
    planted = spool / "files" / "9" / "key.pem"
    if how == "link":
        planted.symlink_to(secret)
    elif how == "link to a folder":
        planted.parent.rmdir()
        planted.parent.symlink_to(secret.parent)
    elif how == "pipe":
        os.mkfifo(planted)
    elif how == "folder":
        planted.mkdir()
    with open(spool / "operations.jsonl", "a") as log:
        log.write(json.dumps({"op": "file", "key": "", "file": name, "folder": None}) + "\n")
    flush(LOCAL, root)
    refused = (spool / "refused.jsonl").read_text()
    assert "a file of the spool" in refused
    kept = [path.name for path in (root / "mlartifacts").rglob("*") if path.is_file()]
    assert "loss.png" in kept
    assert "key.pem" not in kept


def foreign(path: Path) -> None:
    os.chown(path, 12345, 12345)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("owned", [".", "operations.jsonl"])
def test_the_spool_of_another_user_is_left_alone_and_named(root: Path, tmp_path: Path, owned: str) -> None:
    spool = left(root, LOCAL, "foreign", tmp_path)
    foreign(spool / owned)
    before = sorted(spool.rglob("*"))
    (note,) = flush(LOCAL, root)
    assert str(spool) in note
    assert "belongs to user 12345" in note
    assert runs_of(client(root)) == {}
    assert sorted(spool.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_spool_of_a_run_of_another_user_that_is_running_is_not_said_to_be_left(root: Path, tmp_path: Path) -> None:
    goes_on = Spool.open(root / "runs" / "goes-on" / "spool", "local")
    assert goes_on is not None
    goes_on.append({"op": "run"})
    foreign(goes_on.directory)
    assert set_aside(root, "local") == []
    goes_on._lock.release()
    (note,) = set_aside(root, "local")
    assert "goes-on" in note


@pytest.mark.parametrize("what", ["spool", "operations.jsonl"])
def test_a_link_instead_of_a_spool_is_not_followed(root: Path, tmp_path: Path, what: str) -> None:
    spool = left(root, LOCAL, "linked", tmp_path)
    path = spool if what == "spool" else spool / what
    path.rename(tmp_path / "aside")
    path.symlink_to(tmp_path / "aside")
    assert list(leftovers(root)) == []
    (note,) = set_aside(root, "local")
    assert str(spool) in note


def test_odd_values_reach_mlflow_or_are_left_out(root: Path, tmp_path: Path) -> None:
    sample = samples.run(tmp_path)
    tracking = Tracking.open(LOCAL, root, sample.run_id)
    tracking.run_started(sample)
    tracking.step_started(sample.steps[1])
    values: dict[str, Any] = {"nan": float("nan"), "inf": float("inf"), "minus": -float("inf"), "huge": 10**400}
    tracking.step_message(Message(sample.steps[1].name, "metrics", {"values": values}))
    assert tracking.close() == ()
    metrics = runs_of(client(root))["02-pretrain"].data.metrics
    assert str(metrics["nan"]) == "nan"
    assert metrics["inf"] > 1e308
    assert metrics["minus"] < -1e308
    assert "huge" not in metrics
