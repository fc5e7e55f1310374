"""Serving in the foreground without Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from cluster import inline_serve, serve_foreground
from cluster.import_path import python_path
from stages.base import Application, ExampleRequest, Served, StageError
from tests.cluster.support import address, gone

APPLICATION = Application("greeter", "tests.cluster.applications:create", {"greeting": "hello"})

SCRIPT = """
import sys
from cluster.config import InlineCluster
from cluster.factory import executor
from tests.cluster.test_serve_foreground import APPLICATION
with executor(InlineCluster()) as started:
    sys.exit(started.serve_foreground(APPLICATION))
"""


@pytest.fixture
def in_foreground() -> Iterator[tuple[subprocess.Popen[str], str]]:
    environment = os.environ | {"PYTHONPATH": python_path()}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout
        yield process, address(process.stdout)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_drains_and_the_exit_code_is_0(
    in_foreground: tuple[subprocess.Popen[str], str], number: signal.Signals
) -> None:
    process, url = in_foreground
    pid = httpx.get(f"{url}/greeting").json()["pid"]
    with httpx.stream("GET", f"{url}/slow", timeout=60) as response:
        lines = response.iter_lines()
        assert next(lines) == "0"
        process.send_signal(number)
        assert list(lines) == [str(index) for index in range(1, 10)]
    assert process.wait(20) == 0
    assert gone([pid])


def test_the_server_ends_when_its_parent_is_killed(in_foreground: tuple[subprocess.Popen[str], str]) -> None:
    process, url = in_foreground
    pid = httpx.get(f"{url}/greeting").json()["pid"]
    process.kill()
    assert gone([pid])


def test_a_server_that_ends_unexpectedly_is_an_error() -> None:
    def start(application: Application) -> Served:
        served = inline_serve.start(application)
        served.log_file.write_text("the reason\n")
        served.process.kill()
        return served

    with pytest.raises(
        StageError, match=r"ended unexpectedly. Its log, /.*bloomline-server-.*, ends with:\nthe reason"
    ):
        serve_foreground.serve(start, APPLICATION)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("request_", "command"),
    [
        (ExampleRequest("GET", "/greeting"), "curl http://host:1/greeting"),
        (ExampleRequest("DELETE", "/greeting"), "curl -X DELETE http://host:1/greeting"),
        (
            ExampleRequest("POST", "/greet", {"name": "Ada"}),
            "curl http://host:1/greet -H 'content-type: application/json' -d '{\"name\": \"Ada\"}'",
        ),
    ],
)
def test_the_example_is_shown_as_a_command(request_: ExampleRequest, command: str) -> None:
    assert serve_foreground.curl("http://host:1", request_) == command


@pytest.mark.parametrize(("example", "shown"), [(ExampleRequest("GET", "/slow"), True), (None, False)])
def test_only_an_example_of_the_application_is_suggested(
    example: ExampleRequest | None, shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    class Ended:
        url = "http://host:1"

        def running(self) -> bool:
            return False

        def stop(self) -> None:
            pass

        def log(self) -> str:
            return "Its log is empty."

    with pytest.raises(StageError, match="ended unexpectedly"):
        serve_foreground.serve(lambda _: Ended(), APPLICATION, example)
    assert ("curl http://host:1/slow" if shown else "(Ctrl-C ends it).\n") in capsys.readouterr().out
