"""An MLflow server that is down, dies, hangs or fails: the run continues, and nothing is lost or recorded twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest

from pipelines.doctor.tracking_check import check_tracking
from pipelines.tracking.leftovers import flush
from pipelines.tracking.tracker import Tracking
from pipelines.tracking.tracking_config import TrackingConfig
from pipelines.tracking.ui import free_port
from tests.pipelines import samples

pytestmark = pytest.mark.usefixtures("eager_tracking")


class Server:
    """MLflow's own web application, which misbehaves on demand.

    `mode`: pass, hang, fail (HTTP 500) or forbid (HTTP 403 for what writes).
    """

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self.mode = "pass"
        self.asked = 0
        self.fail_after: int | None = None  # requests that still pass before the mode turns to `fail`
        self.uri = f"http://127.0.0.1:{free_port(0)}"
        self._application = application
        self._released = threading.Event()
        self._server: Any = None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.asked += 1
        if self.fail_after is not None:
            self.fail_after -= 1
            if self.fail_after < 0:
                self.mode = "fail"
        mode = self.mode
        if mode == "hang":
            self._released.wait(60)
        if mode == "forbid" and not environ["PATH_INFO"].endswith(("/search", "/get-by-name")):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"Permission denied"]
        if mode not in ("pass", "forbid"):
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b"sorry"]
        return self._application(environ, start_response)

    def up(self) -> None:
        from werkzeug.serving import make_server

        self._server = make_server("127.0.0.1", int(self.uri.rsplit(":", 1)[1]), self, threaded=True)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def down(self) -> None:
        self._released.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def recover(self) -> None:
        self.mode, self.fail_after = "pass", None
        self._released.set()


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Any]:
    """The WSGI application that `mlflow server` serves, on its own database, with proxied artifacts."""
    root = tmp_path_factory.mktemp("server")
    copyfile(empty_database, root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{root / 'mlflow.db'}")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", (root / "mlartifacts").as_uri())
        patch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
        patch.setenv("MLFLOW_TRACKING_URI", "")  # the application sets it: put back what was
        from mlflow.server import app

        yield app


@pytest.fixture
def server(application: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server = Server(application)
    yield server
    server.down()


@pytest.fixture
def sample(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """A run in an experiment that only this test uses, with its own model names."""
    run = samples.run(tmp_path, run_id=request.node.name, pipeline=request.node.name)
    steps = tuple(replace(step, fingerprint=f"{request.node.name}-{step.name}") for step in run.steps)
    return replace(run, steps=steps)


def config(server: Server) -> TrackingConfig:
    return TrackingConfig(kind="server", uri=server.uri, close_timeout_s=240)


def check_arrived(server: Server, sample: Any) -> None:
    """Everything of the run is in MLflow, once."""
    from mlflow import MlflowClient

    asked = MlflowClient(server.uri, server.uri)
    experiment = asked.get_experiment_by_name(sample.pipeline)
    assert experiment is not None
    runs = asked.search_runs([experiment.experiment_id])
    names = sorted(run.info.run_name for run in runs)
    assert names == sorted(["01-corpus", "02-pretrain", "03-quantize", "04-deploy", sample.run_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    (pretrain,) = [run for run in runs if run.info.run_name == "02-pretrain"]
    history = asked.get_metric_history(pretrain.info.run_id, "loss/training_loss")
    assert sorted((point.step, point.value) for point in history) == [(at, 19.0 - at) for at in range(20)]
    models = asked.search_logged_models([experiment.experiment_id])
    assert sorted(model.name for model in models) == ["pretrain", "quantize"]
    assert [file.path for file in asked.list_artifacts(pretrain.info.run_id, "figures")] == ["figures/loss.png"]
    version = asked.get_model_version_by_alias("demo", "champion")
    assert version.tags["bloomline.fingerprint"] == f"{sample.run_id}-quantize"


def test_a_server_that_answers(server: Server, sample: Any, tmp_path: Path) -> None:
    server.up()
    tracking = Tracking.open(config(server), tmp_path, sample.run_id)
    samples.replay(tracking, sample)
    assert tracking.close() == ()
    check_arrived(server, sample)


def test_down_at_the_start(server: Server, sample: Any, tmp_path: Path) -> None:
    tracking = Tracking.open(config(server), tmp_path, sample.run_id)
    samples.replay(tracking, sample)
    (note,) = tracking.close()
    assert server.uri in note
    assert "and the next run sends it" in note
    server.up()
    assert "entries of earlier runs to MLflow" in flush(config(server), tmp_path)[0]
    check_arrived(server, sample)
    assert not list(tmp_path.glob("runs/*/spool"))


@pytest.mark.parametrize("requests", [3, 25])
def test_dies_in_the_middle(server: Server, sample: Any, tmp_path: Path, requests: int) -> None:
    """The server fails from any request on; a later flush completes the run without repeating anything."""
    server.fail_after = requests
    server.up()
    tracking = Tracking.open(config(server), tmp_path, sample.run_id)
    samples.replay(tracking, sample)
    assert tracking.close()
    assert flush(config(server), tmp_path), "it says that there is still something to send"
    server.recover()
    flush(config(server), tmp_path)
    check_arrived(server, sample)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_fails_for_a_while_within_the_run(server: Server, sample: Any, tmp_path: Path) -> None:
    """It is said once when that begins, and once when it is over."""
    server.mode = "fail"
    server.up()
    said: list[str] = []
    tracking = Tracking.open(config(server), tmp_path, sample.run_id, say=said.append)
    samples.replay(tracking, sample)
    wait_until(lambda: tracking._sender._failures > 4)
    assert len(said) == 1
    assert server.uri in said[0]
    assert "The run continues" in said[0]
    (note,) = tracking.notes()
    assert "the next run sends it, or: " in note
    assert "bloomline ui" in note
    server.mode = "pass"
    wait_until(lambda: len(said) == 2 and not tracking._spool.pending())
    assert "works again, and has received what was kept" in said[1]
    assert tracking.close() == ()
    check_arrived(server, sample)


def test_its_experiment_is_deleted_for_a_while_within_the_run(server: Server, sample: Any, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    server.up()
    said: list[str] = []
    tracking = Tracking.open(config(server), tmp_path, sample.run_id, say=said.append)
    tracking.run_started(replace(sample, state="running"))
    wait_until(lambda: tracking.mlflow_run_id("") and not tracking._spool.pending())
    asked = MlflowClient(server.uri, server.uri)
    experiment = asked.get_experiment_by_name(sample.pipeline)
    assert experiment is not None
    asked.delete_experiment(experiment.experiment_id)
    for summary in sample.steps:
        tracking.step_started(samples.waiting(summary))
        tracking.step_finished(summary)
    wait_until(lambda: said)
    assert "was deleted during the run" in said[0]
    asked.restore_experiment(experiment.experiment_id)
    wait_until(lambda: len(said) == 2)
    tracking.run_finished(sample)
    assert tracking.close() == ()
    assert {run.info.status for run in asked.search_runs([experiment.experiment_id])} == {"FINISHED"}


def test_a_user_who_may_not_write_for_a_while_within_the_run(server: Server, sample: Any, tmp_path: Path) -> None:
    server.mode = "forbid"
    server.up()
    said: list[str] = []
    tracking = Tracking.open(config(server), tmp_path, sample.run_id, say=said.append)
    samples.replay(tracking, sample)
    wait_until(lambda: said)
    assert f"does not permit this user to write to the experiment {sample.pipeline!r}" in said[0]
    server.recover()
    wait_until(lambda: len(said) == 2)
    assert tracking.close() == ()
    check_arrived(server, sample)


def test_hangs(server: Server, sample: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server never answers. The run is spooled at once; its end waits for at most one timeout."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    server.mode = "hang"
    server.up()
    tracking = Tracking.open(config(server), tmp_path, sample.run_id)
    samples.replay(tracking, sample)
    assert tracking._spool.pending() > 20, "nothing was sent, and still everything was recorded"
    assert tracking.close()
    assert server.asked <= 3
    server.recover()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    flush(config(server), tmp_path)
    check_arrived(server, sample)


def test_the_doctor_leaves_neither_a_run_nor_an_experiment(server: Server, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    server.up()
    asked = MlflowClient(server.uri, server.uri)
    before = [experiment.name for experiment in asked.search_experiments()]
    answers, usable = check_tracking(config(server), tmp_path, "doctored")
    assert (answers.state, usable.state) == ("ok", "ok")
    assert "'doctored', which the first run makes: another one could be made, and was deleted again" in usable.text
    assert [experiment.name for experiment in asked.search_experiments()] == before
    assert asked.get_experiment_by_name("doctored") is None

    number = asked.create_experiment("doctored")
    _, usable = check_tracking(config(server), tmp_path, "doctored")
    assert usable.text == "experiment 'doctored': a run could be made, and was deleted again"
    assert asked.search_runs([number]) == []
