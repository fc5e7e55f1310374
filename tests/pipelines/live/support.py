"""Runs in a store as a driver leaves them, and a reader of the live page's stream."""

from __future__ import annotations

import http.client
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from cluster.printed_output import part_name
from pipelines.logs import kept_log
from pipelines.run_history import History
from pipelines.store import Store
from tests.pipelines import samples

RUN = "20260101-000000-aaaa"
PATIENCE_S = 120.0


class Going:
    """A run in progress: of the sample's steps, corpus is done and pretrain runs."""

    def __init__(self, store: Store, directory: Path, run_id: str = RUN) -> None:
        self.store = store
        self.sample = samples.run(directory, run_id, name="demo <b>·</b> size=3")
        self.history = History(store)
        waiting = tuple(map(samples.waiting, self.sample.steps))
        self.history.run_started(replace(self.sample, state="running", steps=waiting))
        self.history.step_finished(self.sample.steps[0], None)
        self.history.step_started(replace(waiting[1], state="running"))
        self._points = 0

    def train(self, until: int) -> None:
        """Report the points of the curve before that one."""
        for message in samples.points("pretrain", until, self._points):
            self.history.step_message(message)
        self._points = until

    def print(self, text: str, process: str = "step") -> None:
        place = kept_log.directory(self.sample.run_id, "pretrain", process)
        self.store.files.write(f"{place}/{part_name(0)}", text.encode())

    def end(self) -> None:
        for step in self.sample.steps[1:]:
            self.history.step_finished(step, None)
        self.history.run_finished(self.sample)


class Stream:
    """What the server sends to one page."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.parts: dict[str, str] = defaultdict(str)
        self.received: list[str] = []  # names of parts, in their order
        self.last_id = ""

    def until(self, holds: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        """The parts, as soon as that holds of them."""
        while not holds(self.parts):
            self._read()
        return self.parts

    def _read(self) -> None:
        line = self._response.readline().decode()
        assert line, f"the stream has ended: {self.parts}"
        key, _, value = line.rstrip("\n").partition(": ")
        if key == "id":
            self.last_id = value
        elif key == "data" and value:
            part = json.loads(value)
            self.parts[part["name"]] = part["html"]
            self.received.append(part["name"])


def get(address: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read().decode()
    finally:
        connection.close()


@contextmanager
def streaming(address: str, query: str = "", last_id: str = "") -> Iterator[Stream]:
    """The stream of a page."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=PATIENCE_S)
    try:
        connection.request("GET", f"/events{query}", headers={"Last-Event-ID": last_id} if last_id else {})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        with answer:  # holds the socket open, too
            yield Stream(answer)
    finally:
        connection.close()
