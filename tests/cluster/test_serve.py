"""Serving on Ray, in a step's session and on a production cluster."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import yaml

from cluster.base import Executor
from cluster.import_path import python_path
from cluster.network import answers, free_port
from stages.artifacts.checkpoint import Checkpoint
from stages.base import Application, StageError
from stages.serving.deployment import LanguageModelServing
from tests.cluster.support import address
from tests.stages.model.models import byte_tokenizer, small_config, small_model

pytestmark = [pytest.mark.ray, pytest.mark.slow]

APPLICATION = Application("greeter", "tests.cluster.applications:create", {"greeting": "hello"})


def test_applications_are_served_next_to_each_other_and_drained(ray_session: Executor) -> None:
    from cluster import serve

    served = serve.start(APPLICATION)
    try:
        assert served.url.startswith("http://127.0.0.1:")
        assert httpx.get(f"{served.url}/greeting", timeout=60).json()["pid"] != os.getpid()
        for headers, status in (({"host": "evil.example"}, 421), ({"a": "x" * 40_000}, 431)):
            refused = httpx.get(f"{served.url}/greeting", headers=headers, timeout=60)
            assert (refused.status_code, refused.json()["error"]["type"]) == (status, "invalid_request_error")
        with pytest.raises(StageError, match="broken on purpose"):
            serve.start(Application("broken", "tests.cluster.applications:refuse"))
        assert served.running()
        with httpx.stream("GET", f"{served.url}/slow", timeout=60) as response:
            lines = response.iter_lines()
            assert next(lines) == "0"
            stopping = threading.Thread(target=served.stop)
            stopping.start()
            refused = httpx.get(f"{served.url}/greeting", timeout=60)
            while refused.status_code == 200:
                refused = httpx.get(f"{served.url}/greeting", timeout=60)
            assert (refused.status_code, refused.json()["error"]["type"]) == (503, "server_error")
            assert int(refused.headers["retry-after"]) >= 1
            assert len(refused.headers.get_list("x-request-id")) == 1
            assert list(lines)[-1] == "9"
        stopping.join(60)
        assert not served.running()
    finally:
        served.stop()


def test_what_a_killed_step_served_is_ended_and_serve_with_the_last_application(ray_session: Executor) -> None:
    from cluster import serve, serve_session

    killed = serve.start(APPLICATION, owner="0123abcd")
    other = serve.start(replace(APPLICATION, name="other"), owner="89abcdef")
    serve_session.end_all_of("0123abcd")
    assert not killed.running()
    assert other.running()
    assert httpx.get(f"{other.url}/greeting", timeout=60).status_code == 200
    serve_session.end_all_of("89abcdef")
    assert not serve_session.is_ours(), "a later `serve deploy` starts a Serve with its own port"


def test_an_unhealthy_replica_and_a_killed_one_are_replaced(
    ray_session: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster import serve

    monkeypatch.setattr(serve, "ASGI", serve.ASGI.options(health_check_period_s=0.2))
    served = serve.start(APPLICATION)
    try:

        def greeter() -> int | None:
            try:
                pid: int = httpx.get(f"{served.url}/greeting", timeout=2).json()["pid"]
                return pid
            except (httpx.HTTPError, ValueError):
                return None

        first = httpx.post(f"{served.url}/sicken", timeout=60).json()
        wait_for(lambda: greeter() not in (None, first), 60)
        second = greeter()
        assert second is not None
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(httpx.get, f"{served.url}/slow-start", timeout=60)
            time.sleep(0.5)
            os.kill(second, signal.SIGKILL)
            answer = waiting.result()
        # It was sent once more: to the next replica, or to nobody.
        assert answer.status_code == 200 or (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        wait_for(lambda: greeter() not in (None, first, second), 60)
        stopped = greeter()
        assert stopped is not None
        os.kill(stopped, signal.SIGSTOP)
        wait_for(lambda: greeter() not in (None, stopped), 60)
    finally:
        served.stop()


FOREGROUND = """
import sys
from cluster.config import LocalCluster
from cluster.factory import executor
from tests.cluster.test_serve import APPLICATION
with executor(LocalCluster(cpus=2, gpus=0)) as started:
    sys.exit(started.serve_foreground(APPLICATION))
"""


def test_in_the_foreground_ctrl_c_drains_and_the_exit_code_is_0() -> None:
    environment = os.environ | {"PYTHONPATH": python_path()}
    process = subprocess.Popen(
        [sys.executable, "-c", FOREGROUND], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        assert process.stdout
        url = address(process.stdout)
        with httpx.stream("GET", f"{url}/slow", timeout=60) as response:
            lines = response.iter_lines()
            assert next(lines) == "0"
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all processes of the group
            assert list(lines) == [str(index) for index in range(1, 10)]
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], timeout_s: float, log: Path | None = None) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, log and log.read_text()[-3000:]
        time.sleep(0.2)


@pytest.fixture
def head(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment for a Ray cluster with a dashboard and token authentication, as in production."""
    directory = tempfile.mkdtemp(prefix="serve-")  # short: Ray creates Unix sockets below it
    dashboard, port = free_port(), free_port()
    environment = os.environ | {
        "PYTHONPATH": python_path(),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2,
        "RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    command = [
        "start", "--head", "--block", "--num-cpus=2", f"--port={port}", "--node-ip-address=127.0.0.1",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--temp-dir={directory}",
        "--object-store-memory=100000000", "--disable-usage-stats",
    ]  # fmt: skip
    log = tmp_path / "ray.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *command], env=environment, stdout=output, stderr=output
        )
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{dashboard}"), 60, log)
        yield environment
    finally:
        process.send_signal(signal.SIGINT)  # ends its processes at once; SIGTERM would drain the node for long
        process.wait(30)
        shutil.rmtree(directory, ignore_errors=True)


def test_serve_deploy_accepts_the_config_of_a_deployment(head: dict[str, str], tmp_path: Path) -> None:
    config = small_config(vocab_size=260, context_length=20_000)
    model = Checkpoint.save(tmp_path / "model", small_model(config), config, byte_tokenizer(tmp_path / "t.json"), {})
    serving = LanguageModelServing(model_name="tiny", registered_name="tiny", alias="champion", max_running=2)
    parsed = yaml.safe_load(serving.serve_config(model))
    parsed["http_options"]["port"] = port = free_port()  # 8000 may be taken on the machine that runs the tests
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(parsed))

    command = [sys.executable, "-m", "ray.serve.scripts", "deploy", str(tmp_path / "serve.yaml")]
    deployed = subprocess.run(command, env=head, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert deployed.returncode == 0, deployed.stderr

    url = f"http://127.0.0.1:{port}"
    wait_for(lambda: models(url) == ["tiny"], 90, tmp_path / "ray.log")
    body = {"prompt": "hello", "max_tokens": 5, "temperature": 0}
    text = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()["choices"][0]["text"]
    with httpx.stream("POST", f"{url}/v1/completions", json=body | {"stream": True}, timeout=60) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert len(lines) == 6
    assert "".join(yaml.safe_load(line[6:])["choices"][0]["text"] for line in lines[:-1]) == text
    assert httpx.post(f"{url}/v1/completions", json=body | {"temperature": -1}, timeout=60).status_code == 400
    disconnect_during_the_stream(url)
    cancelled = re.compile(
        'request_success_total{finished_reason="cancelled",model_name="tiny",replica="[a-z0-9]+"} 1.0'
    )
    wait_for(
        lambda: cancelled.search(httpx.get(f"{url}/metrics", timeout=60).text) is not None, 60, tmp_path / "ray.log"
    )


def models(url: str) -> list[str]:
    try:
        response = httpx.get(f"{url}/v1/models", timeout=60)
        return [model["id"] for model in response.json()["data"]] if response.status_code == 200 else []
    except httpx.HTTPError:
        return []


def disconnect_during_the_stream(url: str) -> None:
    body = {"prompt": "hello", "max_tokens": 19_000, "temperature": 0, "stream": True}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as response:
        next(response.iter_lines())
