"""Serving in the foreground until a signal, after which the requests in flight are finished."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Callable
from types import FrameType

from cluster import stop_signals
from cluster.terminal_text import clean_line, say
from stages.base import Application, ExampleRequest, Served, StageError

COMPLETIONS = "/v1/completions"  # the route of OpenAI's API, for which there is a client library


def serve(
    start: Callable[[Application], Served], application: Application, example: ExampleRequest | None = None
) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP, finish the requests in flight, and return the exit code 0.

    Prints the address once it answers, commands that send the `example`, and at the end that it has stopped. A second
    signal raises KeyboardInterrupt. Raises StageError if the server could not be started, or ended without a signal.
    Must be called in the main thread.
    """
    stop_requested = threading.Event()
    ready = False

    def request_stop(_: int, __: FrameType | None) -> None:
        if stop_requested.is_set() or not ready:
            raise KeyboardInterrupt
        stop_requested.set()

    with stop_signals.handled(request_stop):
        try:
            server = start(application)
        except KeyboardInterrupt:
            return 0
        ready = True
        name = clean_line(application.name)
        try:
            lines = [f"\n{name} is served at {server.url} (Ctrl-C ends it)."]
            if example:
                lines += ["\n# in a shell", curl(server.url, example), "\n# in Python", *python(server.url, example)]
                if example.path == COMPLETIONS:
                    lines += ["\n# in Python, with the package openai", *openai(server.url, example, application.name)]
            say("\n".join(_cleaned(line) for line in lines), flush=True)
            while not stop_requested.wait(1.0):
                if not server.running():
                    raise StageError(
                        f"The server of {application.name!r} at {server.url} ended unexpectedly. {server.log()}"
                    )
        finally:
            server.stop()
        say(f"{name}: drained, stopped.", flush=True)
        return 0


def curl(url: str, request: ExampleRequest) -> str:
    """The command for a shell that sends a request to the application at `url`."""
    has_body = request.body is not None
    method = [] if request.method == ("POST" if has_body else "GET") else ["-X", request.method]
    body = ["-H", "content-type: application/json", "-d", json.dumps(request.body)] if has_body else []
    return shlex.join(["curl", *method, url + request.path, *body])


def python(url: str, request: ExampleRequest) -> list[str]:
    """The lines of Python that send a request and print the answer, with the standard library alone."""
    address = ascii(url + request.path)
    if request.body is None:
        return [
            "import urllib.request",
            f"request = urllib.request.Request({address}, method={request.method!r})",
            "print(urllib.request.urlopen(request).read().decode())",
        ]
    return [
        "import json, urllib.request",
        f"body = json.dumps({_literal(request.body)}).encode()",
        'headers = {"content-type": "application/json"}',
        f"request = urllib.request.Request({address}, body, headers, method={request.method!r})",
        "print(urllib.request.urlopen(request).read().decode())",
    ]


def openai(url: str, request: ExampleRequest, name: str) -> list[str]:
    """The lines that ask for a completion with OpenAI's client. `name`: of the model, where the request has none."""
    body = json.loads(json.dumps(request.body))
    arguments = ", ".join(f"{key}={_literal(value)}" for key, value in {"model": name, **body}.items())
    return [
        "from openai import OpenAI",
        f'client = OpenAI(base_url={url + "/v1"!a}, api_key="none")',
        f"print(client.completions.create({arguments}).choices[0].text)",
    ]


def _literal(value: object) -> str:
    """A JSON value as Python writes it, in ASCII."""
    return ascii(json.loads(json.dumps(value)))


def _cleaned(line: str) -> str:
    leading = line[: len(line) - len(line.lstrip("\n"))]
    return leading + clean_line(line[len(leading) :])
