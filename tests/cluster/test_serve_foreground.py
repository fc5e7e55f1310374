"""Serving in the foreground without Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

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
    assert process.stdout is not None
    assert process.stdout.read().endswith("greeter: drained, stopped.\n")
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


@pytest.mark.parametrize(
    "example",
    [
        ExampleRequest("GET", "/greeting"),
        ExampleRequest("POST", "/v1/translate", {"words": ["it's", 'a "b" \u202e \n', "née"], "count": None}),
    ],
)
def test_the_command_and_the_lines_of_python_are_right_as_they_are_printed(
    example: ExampleRequest, echo: tuple[str, list[Any]]
) -> None:
    url, received = echo
    commands = (
        ["bash", "-c", serve_foreground.curl(url, example)],
        [sys.executable, "-c", "\n".join(serve_foreground.python(url, example))],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "answered"
    assert received == [(example.method, example.path, example.body)] * 2


def test_the_lines_for_the_client_of_openai_ask_for_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class OpenAI:
        def __init__(self, base_url: str, api_key: str) -> None:
            asked["url"] = base_url
            self.completions = self

        def create(self, **arguments: Any) -> SimpleNamespace:
            asked.update(arguments)
            return SimpleNamespace(choices=[SimpleNamespace(text="a text")])

    monkeypatch.setitem(sys.modules, "openai", SimpleNamespace(OpenAI=OpenAI))
    request = ExampleRequest("POST", "/v1/completions", {"prompt": "Once “upon", "max_tokens": 4})
    exec("\n".join(serve_foreground.openai("http://host:1", request, "books")), {})
    assert asked == {"url": "http://host:1/v1", "model": "books", "prompt": "Once “upon", "max_tokens": 4}


@pytest.fixture
def echo() -> Iterator[tuple[str, list[Any]]]:
    """The address of a server, and the requests that it has received."""
    received: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            size = int(self.headers.get("content-length", 0))
            received.append((self.command, self.path, json.loads(self.rfile.read(size)) if size else None))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"answered")

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()


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
