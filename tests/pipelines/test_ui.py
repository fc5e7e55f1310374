"""`bloomline ui`: a real server on loopback, ended by Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copyfile
from threading import Thread
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from pipelines.errors import BloomlineError
from pipelines.tracking.tracking_config import TrackingConfig
from pipelines.tracking.ui import free_port, serve_ui

REPOSITORY = Path(__file__).parents[2]
SERVE = """
import sys
from pathlib import Path
from pipelines.tracking.tracking_config import TrackingConfig
from pipelines.tracking.ui import serve_ui
raise SystemExit(serve_ui(TrackingConfig(), Path(sys.argv[1]), say=lambda text: print(text, flush=True)))
"""


def test_a_port_in_use_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port
    assert free_port(port) == port


@contextmanager
def a_server(status: int, body: bytes) -> Iterator[str]:
    """The address of a server that gives one answer to everything."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_of_a_tracking_server_that_answers_only_the_address_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    with a_server(200, b'{"experiments": []}') as uri:
        assert serve_ui(TrackingConfig(kind="server", uri=uri), tmp_path, say=said.append) == 0
    assert said == [f"MLflow: {uri}"]


@pytest.mark.parametrize(
    ("status", "body", "trouble"),
    [
        (401, b"Unauthorized", "MLflow at URI refused the credentials: set MLFLOW_TRACKING_TOKEN"),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', "MLflow at URI refused the credentials"),
        (200, b"<html>hello</html>", "what answers at URI is not MLflow: check the host, port and path"),
        (404, b"not here", "what answers at URI is not MLflow"),
        (400, b'{"error_code": "BAD_REQUEST", "message": "odd"}', "MLflow at URI answered with an error: BAD_REQUEST"),
    ],
)
def test_a_tracking_server_that_cannot_be_used_is_refused(
    tmp_path: Path, status: int, body: bytes, trouble: str
) -> None:
    with a_server(status, body) as uri, pytest.raises(BloomlineError) as refused:
        serve_ui(TrackingConfig(kind="server", uri=uri), tmp_path, say=pytest.fail)
    assert str(refused.value).startswith(trouble.replace("URI", uri))


def test_a_tracking_server_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    with a_server(200, b"") as uri:
        pass
    with pytest.raises(BloomlineError, match=r"no server answers at http://127\.0\.0\.1:.* check tracking.uri"):
        serve_ui(TrackingConfig(kind="server", uri=uri), tmp_path, say=pytest.fail)


def answers(address: str) -> bool:
    try:
        with urlopen(f"{address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def test_what_mlflow_says_is_passed_on_without_its_advice_about_its_own_options(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    copyfile(empty_database, tmp_path / "mlflow.db")
    said = "[MLflow] Security middleware enabled with default settings (localhost-only). To allow use --host 0.0.0.0"
    script = f"import sys; sys.stderr.write({said!r} + chr(10) + 'the port is taken' + chr(10)); sys.exit(3)"
    monkeypatch.setattr("pipelines.tracking.ui._command", lambda *_: [sys.executable, "-c", script])
    assert serve_ui(TrackingConfig(), tmp_path, say=pytest.fail) == 3
    assert capfd.readouterr().err.splitlines()[-1:] == ["the port is taken"]


@pytest.mark.slow
def test_it_serves_until_ctrl_c_and_leaves_nothing_behind(tmp_path: Path, empty_database: Path) -> None:
    copyfile(empty_database, tmp_path / "mlflow.db")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, tmp_path],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    assert process.stdout
    assert process.stderr
    address = process.stdout.readline().split()[1]
    try:
        assert answers(address), "the address was printed before the server answered"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert not answers(address), "the server outlived its command"
        assert "--host" not in process.stderr.read(), "an option that only MLflow's own command has"
    finally:
        process.kill()
