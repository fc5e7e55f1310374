"""What MLflow receives of whole runs, in a local database."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest

from pipelines.tracking import operations
from pipelines.tracking.leftovers import flush
from pipelines.tracking.tracker import Tracking
from pipelines.tracking.tracking_config import TrackingConfig
from tests.pipelines import samples

pytestmark = pytest.mark.usefixtures("eager_tracking")

LOCAL = TrackingConfig(kind="local", close_timeout_s=240)
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path, empty_database: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    copyfile(empty_database, root / "mlflow.db")
    return root


def client(root: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(LOCAL.tracking_uri(root), LOCAL.tracking_uri(root))


def runs_of(asked: Any) -> dict[str, Any]:
    """Every run by name."""
    experiments = [found.experiment_id for found in asked.search_experiments()]
    found = asked.search_runs(experiments, max_results=1000)
    names = [run.info.run_name for run in found]
    assert len(names) == len(set(names)), f"made twice: {names}"
    return dict(zip(names, found, strict=True))


def track(root: Path, sample: Any, config: TrackingConfig = LOCAL, curve: int = 20) -> tuple[str, ...]:
    tracking = Tracking.open(config, root, sample.run_id)
    samples.replay(tracking, sample, curve)
    return tracking.close()


def test_a_run_its_steps_models_and_datasets(root: Path, tmp_path: Path) -> None:
    sample = samples.run(tmp_path)
    tracking = Tracking.open(LOCAL, root, sample.run_id)
    samples.replay(tracking, sample)
    (tmp_path / "report.html").write_text("<h1>report</h1>")
    tracking.attach(tmp_path / "report.html")
    assert tracking.close() == ()
    assert tracking.mlflow_run_id("pretrain")

    asked = client(root)
    runs = runs_of(asked)
    assert set(runs) == {"run-1", "01-corpus", "02-pretrain", "03-quantize", "04-deploy"}
    parent, pretrain = runs.pop("run-1"), runs["02-pretrain"]
    assert {run.info.status for run in [parent, *runs.values()]} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}

    assert parent.data.tags["mlflow.source.git.commit"] == sample.git_commit
    assert parent.data.tags["bloomline.version.python"] == "3.11"
    link = f"[pretrain](#/experiments/{parent.info.experiment_id}/runs/{pretrain.info.run_id})"
    assert f"| {link} | pretrain | done |" in parent.data.tags["mlflow.note.content"]
    assert (
        "Runs of the pipeline **demo**" in asked.get_experiment(parent.info.experiment_id).tags["mlflow.note.content"]
    )
    assert "**validation_loss 2.5**" in pretrain.data.tags["mlflow.note.content"]
    assert "bloomline.driver" not in parent.data.tags
    assert parent.data.metrics["pretrain/validation_loss"] == 2.5
    kept = {file.path for file in asked.list_artifacts(parent.info.run_id)}
    assert kept == {"config.yaml", "plan.txt", "graph.svg", "report.html"}

    assert pretrain.data.tags["bloomline.fingerprint"] == sample.steps[1].fingerprint
    assert pretrain.data.params["learning_rate"] == "0.001"
    assert len(pretrain.data.params["prompt"]) == operations.MAX_PARAMETER
    whole = json.loads(Path(asked.download_artifacts(pretrain.info.run_id, "config.json")).read_text())
    assert whole["prompt"] == "x" * 20_000
    history = asked.get_metric_history(pretrain.info.run_id, "loss/training_loss")
    curve = sorted((point.step, point.value, point.timestamp) for point in history)
    assert curve == [(at, 19.0 - at, (10**9 + at) * 1000) for at in range(20)]
    assert [file.path for file in asked.list_artifacts(pretrain.info.run_id, "figures")] == ["figures/loss.png"]

    corpus = runs["01-corpus"].info.run_id
    assert [file.path for file in asked.list_artifacts(corpus, "pages")] == ["pages/card.html"]

    dataset = pretrain.inputs.dataset_inputs[0]
    assert (dataset.dataset.name, dataset.dataset.digest) == ("corpus", sample.steps[0].fingerprint[:36])
    models = {model.name: model for model in asked.search_logged_models([parent.info.experiment_id])}
    assert {name: str(model.status) for name, model in models.items()} == {"pretrain": "READY", "quantize": "READY"}
    assert models["pretrain"].tags["bloomline.artifact"] == "/store/pretrain"
    assert {metric.key: metric.value for metric in models["pretrain"].metrics}["loss/validation_loss"] == 2.5
    quantize = asked.get_run(runs["03-quantize"].info.run_id)
    assert [output.model_id for output in pretrain.outputs.model_outputs] == [models["pretrain"].model_id]
    assert [read.model_id for read in quantize.inputs.model_inputs] == [models["pretrain"].model_id]
    version = asked.get_model_version_by_alias("demo", "champion")
    assert version.run_id == runs["03-quantize"].info.run_id
    assert models["quantize"].model_id in version.source
    assert version.tags["bloomline.metric.deploy.time_to_first_token_ms"] == "20"
    assert version.tags["bloomline.datasets"] == f"corpus {sample.steps[0].fingerprint[:12]}"
    assert link in version.description
    assert f"[run run-1](#/experiments/{parent.info.experiment_id}/runs/{parent.info.run_id})" in version.description
    assert "Models that the step deploy puts to use" in asked.get_registered_model("demo").description
    assert not list(root.glob("runs/*/spool"))


def test_telling_everything_again_changes_nothing(root: Path, tmp_path: Path) -> None:
    """A spool whose acknowledgements were lost is sent from its beginning."""
    sample = samples.run(tmp_path)
    tracking = Tracking.open(LOCAL, root, sample.run_id)
    samples.replay(tracking, sample)
    log = (root / "runs" / sample.run_id / "spool" / "operations.jsonl").read_bytes()
    figures = {
        path.name: path.parent.name for path in (root / "runs" / sample.run_id / "spool" / "files").rglob("*.png")
    }
    tracking.close()
    before = snapshot(root)
    again = root / "runs" / sample.run_id / "spool"
    again.mkdir(parents=True)
    (again / "operations.jsonl").write_bytes(log)
    for name, folder in figures.items():
        (again / "files" / folder).mkdir(parents=True)
        samples.png(again / "files" / folder / name)
    assert "entries of earlier runs to MLflow" in flush(LOCAL, root)[0]
    assert snapshot(root) == before


def snapshot(root: Path) -> Any:
    """The number of objects of each kind."""
    asked = client(root)
    runs = runs_of(asked)
    experiment = runs["run-1"].info.experiment_id
    return (
        {name: (run.info.status, run.data.params) for name, run in runs.items()},
        {
            key: len(asked.get_metric_history(runs["02-pretrain"].info.run_id, key))
            for key in ("loss/training_loss", "lr")
        },
        sorted(model.model_id for model in asked.search_logged_models([experiment])),
        [version.version for version in asked.search_model_versions("name = 'demo'")],
        [len(asked.get_run(run.info.run_id).inputs.model_inputs) for _, run in sorted(runs.items())],
    )


def test_a_cached_step_is_a_link_to_the_run_that_made_it(root: Path, tmp_path: Path) -> None:
    first = samples.run(tmp_path)
    track(root, first)
    made = runs_of(client(root))["02-pretrain"]
    steps = tuple(
        replace(step, state="cached", reason="by run run-1", cached_from="run-1") if step.name != "deploy" else step
        for step in first.steps
    )
    second = replace(first, run_id="run-2", steps=steps)
    track(root, second)
    asked = client(root)
    experiments = [found.experiment_id for found in asked.search_experiments()]
    found = {run.info.run_name: run for run in asked.search_runs(experiments, "tags.`bloomline.run` = 'run-2'")}
    assert found.keys() == {"run-2", "04-deploy"}, "a cached step has no run of its own"
    link = f"[pretrain](#/experiments/{made.info.experiment_id}/runs/{made.info.run_id})"
    assert f"| {link} | pretrain | cached |" in found["run-2"].data.tags["mlflow.note.content"]
    assert found["run-2"].data.metrics["pretrain/validation_loss"] == 2.5
    assert len(asked.search_logged_models(experiments)) == 2, "a cached model is not another model"


def test_a_failed_and_a_skipped_step(root: Path, tmp_path: Path) -> None:
    sample = samples.run(tmp_path, state="failed")
    nothing: dict[str, Any] = {"artifact": None, "artifact_type": None, "artifact_role": None, "facts": {}}
    trace = tmp_path / "pretrain.traceback.txt"
    trace.write_text("Traceback (most recent call last): ...")
    failed = replace(sample.steps[1], state="failed", error="no memory", traceback=trace, **nothing)
    skipped = replace(sample.steps[2], state="skipped", reason="needs pretrain, which failed", **nothing)
    track(root, replace(sample, steps=(sample.steps[0], failed, skipped)))
    asked = client(root)
    runs = runs_of(asked)
    kept = asked.download_artifacts(runs["02-pretrain"].info.run_id, trace.name, str(tmp_path))
    assert Path(kept).read_text() == trace.read_text()
    assert {name: run.info.status for name, run in runs.items()} == {
        "run-1": "FAILED",
        "01-corpus": "FINISHED",
        "02-pretrain": "FAILED",
    }
    assert runs["02-pretrain"].data.tags["bloomline.error"] == "no memory"
    assert "which failed" in runs["run-1"].data.tags["mlflow.note.content"]


def test_an_interrupted_run_ends_as_killed_with_its_open_steps(root: Path, tmp_path: Path) -> None:
    sample = samples.run(tmp_path)
    tracking = Tracking.open(LOCAL, root, sample.run_id)
    tracking.run_started(replace(sample, state="running"))
    tracking.step_started(samples.waiting(sample.steps[0]))
    tracking.close("stopped")
    assert {run.info.status for run in runs_of(client(root)).values()} == {"KILLED"}


def test_system_metrics_are_curves_of_the_steps_that_run(root: Path, tmp_path: Path) -> None:
    sample = samples.run(tmp_path)
    tracking = Tracking.open(LOCAL.model_copy(update={"system_metrics_interval_s": 0.05}), root, sample.run_id)
    tracking.run_started(replace(sample, state="running"))
    tracking.step_started(samples.waiting(sample.steps[0]))
    until(lambda: tracking._samples > 2)
    tracking.step_finished(sample.steps[0])
    tracking.close()
    metrics = runs_of(client(root))["01-corpus"].data.metrics
    assert 0 < metrics["system/system_memory_usage_percentage"] <= 100
    assert "system/cpu_utilization_percentage" in metrics


def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


KILLED_DRIVER = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from pipelines.tracking.tracking_config import TrackingConfig
from pipelines.tracking.tracker import Tracking
from tests.pipelines import samples
root, scratch = Path(sys.argv[1]), Path(sys.argv[2])
sample = samples.run(scratch, run_id="run-0")
tracking = Tracking.open(TrackingConfig(), root, sample.run_id)
tracking.run_started(replace(sample, state="running"))
tracking.step_started(samples.waiting(sample.steps[0]))
for message in samples.points("corpus", 5):
    tracking.step_message(message)
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_driver_left_is_sent_and_its_runs_are_closed(root: Path, tmp_path: Path) -> None:
    """SIGKILL before MLflow received anything: the next start sends it, then finds that the driver is gone."""
    done = subprocess.run([sys.executable, "-c", KILLED_DRIVER, root, tmp_path], cwd=REPOSITORY, check=False)
    assert done.returncode == -signal.SIGKILL
    notes = track(root, samples.run(tmp_path))
    assert any("earlier runs" in note for note in notes)
    assert any("Closed 1 run" in note for note in notes)
    asked = client(root)
    found = asked.search_runs(
        [experiment.experiment_id for experiment in asked.search_experiments()], "tags.`bloomline.run` = 'run-0'"
    )
    assert {run.info.run_name: run.info.status for run in found} == {"run-0": "FAILED", "01-corpus": "FAILED"}
    (corpus,) = [run for run in found if run.info.run_name == "01-corpus"]
    assert len(asked.get_metric_history(corpus.info.run_id, "loss/training_loss")) == 5


def test_the_run_of_a_living_driver_is_not_changed(root: Path, tmp_path: Path) -> None:
    sample = samples.run(tmp_path)
    living = Tracking.open(LOCAL, root, sample.run_id)
    living.run_started(replace(sample, state="running"))
    until(lambda: living.mlflow_run_id("") is not None)
    track(root, replace(sample, run_id="run-2", pipeline="other"))
    asked = client(root)
    assert asked.get_run(living.mlflow_run_id("")).info.status == "RUNNING"
    living.close("stopped")


def test_an_artifact_store_that_fails_holds_up_nothing_else(root: Path, tmp_path: Path) -> None:
    """Figures and texts that can't be stored are set aside; parameters and metrics arrive."""
    (root / "mlartifacts").write_text("not a directory")
    notes = track(root, samples.run(tmp_path))
    assert "refused" in notes[0]
    runs = runs_of(client(root))
    assert runs["02-pretrain"].data.metrics["loss/training_loss"] == 0.0
    assert runs["run-1"].info.status == "FINISHED"


def test_a_damaged_database_is_reported_with_what_to_do(root: Path, tmp_path: Path) -> None:
    (root / "mlflow.db").write_bytes(b"no database" * 100)
    notes = track(root, samples.run(tmp_path), TrackingConfig(kind="local", close_timeout_s=3))
    assert "the file is not a database. Move it away" in notes[0]
    assert list(root.glob("runs/*/spool/operations.jsonl"))


def test_a_spool_that_cannot_be_written_does_not_raise(root: Path, tmp_path: Path) -> None:
    sample = samples.run(tmp_path)
    tracking = Tracking.open(LOCAL, root, sample.run_id)
    (root / "runs" / sample.run_id / "spool" / "operations.jsonl").mkdir()
    samples.replay(tracking, sample)
    assert any("incomplete" in note for note in tracking.notes())


def test_two_drivers_may_make_the_database_at_once(tmp_path: Path) -> None:
    from pipelines.tracking.mlflow_connection import Connection

    with ThreadPoolExecutor(2) as drivers:
        made = list(drivers.map(lambda _: Connection(LOCAL, tmp_path).experiment("demo"), range(2)))
    assert made[0] == made[1]


def test_tracking_a_run_imports_no_mlflow_in_the_drivers_thread() -> None:
    code = "import sys, pipelines.tracking.tracker, pipelines.tracking.ui; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
