"""`bloomline ui`: a real server on loopback, ended by Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from shutil import copyfile
from urllib.error import URLError
from urllib.request import urlopen

import pytest

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


def test_of_a_tracking_server_only_the_address_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    assert serve_ui(TrackingConfig(kind="server", uri="http://mlflow.example"), tmp_path, say=said.append) == 0
    assert said == ["MLflow: http://mlflow.example"]


def answers(address: str) -> bool:
    try:
        with urlopen(f"{address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


@pytest.mark.slow
def test_it_serves_until_ctrl_c_and_leaves_nothing_behind(tmp_path: Path, empty_database: Path) -> None:
    copyfile(empty_database, tmp_path / "mlflow.db")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, tmp_path], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout
    address = process.stdout.readline().split()[1]
    try:
        deadline = time.monotonic() + 200
        while not answers(address):
            assert process.poll() is None
            assert time.monotonic() < deadline, "the server never came up"
            time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert not answers(address), "the server outlived its command"
    finally:
        process.kill()
