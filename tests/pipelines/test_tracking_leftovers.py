"""A short run leaves MLflow to a process that outlives it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.tracking import leftovers, operations, sender
from pipelines.tracking.tracker import Tracking
from pipelines.tracking.tracking_config import TrackingConfig
from tests.pipelines import samples
from tests.support import wait_for_mlflow

REPOSITORY = Path(__file__).parents[2]
SHORT_RUN = """
import sys
from dataclasses import replace
from pathlib import Path
from pipelines.tracking.tracking_config import TrackingConfig
from pipelines.tracking.tracker import Tracking
from tests.pipelines import samples
root, scratch = Path(sys.argv[1]), Path(sys.argv[2])
sample = samples.run(scratch, run_id="run-0")
tracking = Tracking.open(TrackingConfig(in_background=True), root, sample.run_id)
tracking.run_started(replace(sample, state="running"))
tracking.run_finished(sample)
print(*tracking.close("done"), "mlflow" in sys.modules)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def test_a_short_run_ends_without_mlflow_and_its_tracking_arrives(root: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    line = [sys.executable, "-c", SHORT_RUN, str(root), str(tmp_path)]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    wait_for_mlflow(root)
    asked = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in asked.search_experiments()]
    (found,) = asked.search_runs(experiments, "tags.`bloomline.run` = 'run-0'")
    assert found.info.status == "FINISHED"


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (TrackingConfig(), "it is not asked to"),
        (TrackingConfig(in_background=True), "mlflow is imported here"),
    ],
)
def test_other_runs_send_themselves(
    config: TrackingConfig, why: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow  # noqa: F401

    monkeypatch.setattr(leftovers, "send_in_background", None)
    sample = samples.run(tmp_path)
    tracking = Tracking.open(config, root, sample.run_id)
    tracking.run_started(sample)
    tracking.run_finished(sample)
    assert tracking.close("done") == ()
    assert not (root / "runs" / sample.run_id / "spool").exists()


def test_a_run_that_ends_with_much_to_send_leaves_the_rest(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    config = TrackingConfig(in_background=True)
    left: list[Path] = []
    monkeypatch.setattr(leftovers, "send_in_background", lambda config, root: left.append(root))
    monkeypatch.setattr(sender, "LONG_REST", 20)
    sample = samples.run(tmp_path)
    tracking = Tracking.open(config, root, sample.run_id)
    tracking.run_started(sample)
    texts = [operations.log(operations.PARENT, tags={f"tag.{number}": "x"}, model=str(number)) for number in range(100)]
    tracking._put(texts)  # of different models, so that they do not become one
    tracking.run_finished(sample)
    assert tracking.close("done") == ()
    assert left == [root]
    (note,) = leftovers.flush(config, root)
    assert note.startswith("Sent ")
    asked = MlflowClient(f"sqlite:///{root}/mlflow.db")
    (found,) = asked.search_runs([one.experiment_id for one in asked.search_experiments()], "tags.`tag.99` = 'x'")
    assert found.info.status == "FINISHED"
    assert {f"tag.{number}" for number in range(100)} <= found.data.tags.keys()


def test_a_process_that_cannot_be_started_leaves_the_spool(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.delitem(sys.modules, "mlflow")
    monkeypatch.setattr(leftovers, "send_in_background", fail)
    sample = samples.run(tmp_path)
    tracking = Tracking.open(TrackingConfig(in_background=True), root, sample.run_id)
    tracking.run_started(sample)
    tracking.close("done")
    assert (root / "runs" / sample.run_id / "spool" / "operations.jsonl").stat().st_size > 0


def test_one_entry_is_not_entries() -> None:
    assert [leftovers.sent(count).split()[1:3] for count in (1, 20)] == [["1", "entry"], ["20", "entries"]]


def left_by_a_killed_run(root: Path, scratch: Path, age_s: float) -> None:
    sample = samples.run(scratch)
    tracking = Tracking.open(TrackingConfig(in_background=True), root, sample.run_id)
    tracking.run_started(sample)
    tracking._spool.close()
    log = root / "runs" / sample.run_id / "spool" / "operations.jsonl"
    os.utime(log, (time.time() - age_s,) * 2)


def test_a_command_that_runs_nothing_has_what_waits_sent_and_says_so(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    started: list[Path] = []
    monkeypatch.setattr(leftovers, "send_in_background", lambda config, root: started.append(root))
    config = TrackingConfig(in_background=True)
    assert leftovers.resume(config, root) == ()
    left_by_a_killed_run(root, tmp_path, age_s=3600)
    (note,) = leftovers.resume(config, root)
    assert (
        note == f"The tracking of 1 earlier run has not reached {root}/mlflow.db: it is being sent in the background."
    )
    assert started == [root]
    other = TrackingConfig(kind="server", uri="http://elsewhere:5000")
    assert leftovers.resume(other, root) == ("The tracking of 1 earlier run waits for a run with tracking=local.",)
    assert started == [root]


def test_what_was_left_just_now_is_about_to_be_sent(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    monkeypatch.setattr(leftovers, "send_in_background", None)
    left_by_a_killed_run(root, tmp_path, age_s=1)
    assert leftovers.resume(TrackingConfig(in_background=True), root) == ()
    monkeypatch.setattr(leftovers, "send_in_background", lambda config, root: None)
    (note,) = leftovers.resume(TrackingConfig(), root)  # whose runs leave nothing to a process
    assert note.endswith("it is being sent in the background.")


def test_a_process_that_cannot_be_started_is_said(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise BlockingIOError(11, "no more processes")

    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    monkeypatch.setattr(leftovers, "send_in_background", fail)
    left_by_a_killed_run(root, tmp_path, age_s=3600)
    (note,) = leftovers.resume(TrackingConfig(in_background=True), root)
    assert note.endswith("has not reached " + f"{root}/mlflow.db: the next run sends it (no more processes).")
