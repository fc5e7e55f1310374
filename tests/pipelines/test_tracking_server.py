"""An MLflow server that is down, dies, hangs or fails: the run goes on, and nothing is lost or told twice."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.tracking.config import TrackingConfig
from pipelines.tracking.tracker import Tracking, flush
from pipelines.tracking.ui import free_port
from tests.pipelines import samples

REPOSITORY = Path(__file__).parents[2]
SERVE = """
import sys
from pathlib import Path
from pipelines.tracking.config import TrackingConfig
from pipelines.tracking.ui import serve_ui
raise SystemExit(serve_ui(TrackingConfig(), Path(sys.argv[1]), say=lambda text: print(text, flush=True)))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server, started as `bloomline ui` starts it; Ctrl-C must end it with exit code 0."""
    root = tmp_path_factory.mktemp("server")
    process = subprocess.Popen([sys.executable, "-c", SERVE, root], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    address = process.stdout.readline().split()[1]
    host = address.removeprefix("http://")
    deadline = time.monotonic() + 90
    while not answers(host):
        assert process.poll() is None
        assert time.monotonic() < deadline, "the server never came up"
        time.sleep(0.2)
    yield host
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert not answers(host), "the server outlived its command"


def answers(host: str) -> bool:
    connection = http.client.HTTPConnection(host, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


class Proxy:
    """Stands before the server, and misbehaves on demand. `mode`: pass, hang or fail (HTTP 500)."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.mode = "pass"
        self.asked = 0
        self.fail_after: int | None = None  # requests that still pass before the mode turns to `fail`
        self.released = threading.Event()
        self.port = free_port(0)
        self.uri = f"http://127.0.0.1:{self.port}"
        self._server: ThreadingHTTPServer | None = None

    def up(self) -> None:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def forward(self) -> None:
                proxy.asked += 1
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if proxy.fail_after is not None:
                    proxy.fail_after -= 1
                    if proxy.fail_after < 0:
                        proxy.mode = "fail"
                if proxy.mode == "hang":
                    proxy.released.wait(60)
                    return
                if proxy.mode == "fail":
                    self.send_error(500)
                    return
                connection = http.client.HTTPConnection(proxy.upstream, timeout=60)
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.getheader("Content-Type") or "text/plain")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # noqa: N815

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def down(self) -> None:
        self.released.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setattr("pipelines.tracking.sender.FIRST_BACKOFF_S", 0.05)
    monkeypatch.setattr("pipelines.tracking.sender.LONGEST_BACKOFF_S", 0.2)
    monkeypatch.setattr("pipelines.tracking.sender.LINGER_S", 0.05)
    proxy = Proxy(server)
    yield proxy
    proxy.down()


@pytest.fixture
def told(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """A run in an experiment of this test's own, whose models are no other test's."""
    run = samples.run(tmp_path, run_id=request.node.name, pipeline=request.node.name)
    steps = tuple(replace(step, fingerprint=f"{request.node.name}-{step.name}") for step in run.steps)
    return replace(run, steps=steps)


def config(proxy: Proxy) -> TrackingConfig:
    return TrackingConfig(kind="server", uri=proxy.uri, request_timeout_s=2, close_timeout_s=60)


def check_arrived(server: str, told: Any) -> None:
    """Everything of the run is in MLflow, once."""
    from mlflow import MlflowClient

    asked = MlflowClient(f"http://{server}", f"http://{server}")
    experiment = asked.get_experiment_by_name(told.pipeline)
    runs = asked.search_runs([experiment.experiment_id])
    names = sorted(run.info.run_name for run in runs)
    assert names == sorted(["01-corpus", "02-pretrain", "03-quantize", "04-deploy", told.run_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    (pretrain,) = [run for run in runs if run.info.run_name == "02-pretrain"]
    history = asked.get_metric_history(pretrain.info.run_id, "training_loss")
    assert sorted((point.step, point.value) for point in history) == [(at, 19.0 - at) for at in range(20)]
    models = asked.search_logged_models([experiment.experiment_id])
    assert sorted(model.name for model in models) == ["pretrain", "quantize"]
    assert [file.path for file in asked.list_artifacts(pretrain.info.run_id, "figures")] == ["figures/loss.png"]
    version = asked.get_model_version_by_alias("demo", "champion")
    assert version.tags["bloomline.fingerprint"] == f"{told.run_id}-quantize"


def test_a_server_that_answers(proxy: Proxy, server: str, told: Any, tmp_path: Path) -> None:
    proxy.up()
    tracking = Tracking.open(config(proxy), tmp_path, told.run_id)
    samples.tell(tracking, told)
    assert tracking.close() == ()
    check_arrived(server, told)


def test_down_at_the_start(proxy: Proxy, server: str, told: Any, tmp_path: Path) -> None:
    tracking = Tracking.open(config(proxy), tmp_path, told.run_id)
    samples.tell(tracking, told)
    (note,) = tracking.close()
    assert proxy.uri in note
    assert "sent by the next run" in note
    proxy.up()
    assert "Sent to MLflow" in flush(config(proxy), tmp_path)[0]
    check_arrived(server, told)
    assert not list(tmp_path.glob("runs/*/spool"))


@pytest.mark.parametrize("requests", [3, 17, 40])
def test_dies_in_the_middle(proxy: Proxy, server: str, told: Any, tmp_path: Path, requests: int) -> None:
    """It fails from some request on, wherever that is; a later flush completes the run without repeating anything."""
    proxy.fail_after = requests
    proxy.up()
    tracking = Tracking.open(config(proxy), tmp_path, told.run_id)
    samples.tell(tracking, told)
    assert tracking.close()
    proxy.down()
    assert flush(config(proxy), tmp_path), "it says that there is still something to send"
    proxy.mode, proxy.fail_after = "pass", None
    proxy.up()
    flush(config(proxy), tmp_path)
    check_arrived(server, told)


def test_fails_for_a_while_within_the_run(proxy: Proxy, server: str, told: Any, tmp_path: Path) -> None:
    proxy.mode = "fail"
    proxy.up()
    tracking = Tracking.open(config(proxy), tmp_path, told.run_id)
    samples.tell(tracking, told)
    deadline = time.monotonic() + 60
    while tracking._sender.trouble is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert tracking.notes()
    proxy.mode = "pass"
    while tracking._sender.trouble is not None or tracking._spool.pending():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert tracking.close() == ()
    check_arrived(server, told)


def test_hangs(proxy: Proxy, server: str, told: Any, tmp_path: Path) -> None:
    """It takes requests and never answers. The run is told to the spool at once; its end waits one timeout at most."""
    proxy.mode = "hang"
    proxy.up()
    tracking = Tracking.open(config(proxy), tmp_path, told.run_id)
    samples.tell(tracking, told)
    assert tracking._spool.pending() > 20, "nothing was sent, and still all of it was told"
    assert tracking.close()
    assert proxy.asked <= 3
    proxy.down()
    proxy.mode = "pass"
    proxy.up()
    flush(config(proxy), tmp_path)
    check_arrived(server, told)
