"""A short run leaves MLflow to a process that outlives it."""

from __future__ import annotations

import subprocess
import sys
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
