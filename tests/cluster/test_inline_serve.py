"""Serving without Ray, in a child process."""

from __future__ import annotations

import json
import os
import threading

import httpx
import pytest

from cluster import inline_serve
from cluster.network import answers
from stages.base import Application, StageError
from tests.cluster.support import gone

APPLICATION = Application("greeter", "tests.cluster.applications:create", {"greeting": "hello"})


def test_an_application_is_served_by_another_process_until_stopped() -> None:
    served = inline_serve.start(APPLICATION)
    try:
        answer = httpx.get(f"{served.url}/greeting").json()
        assert answer["greeting"] == "hello"
        assert answer["pid"] != os.getpid()
        assert served.url.startswith("http://127.0.0.1:")
        assert served.running()
    finally:
        served.stop()
    assert gone([answer["pid"]])
    assert not served.running()
    assert not answers(served.url)


def test_stopping_finishes_the_requests_in_flight() -> None:
    served = inline_serve.start(APPLICATION)
    with httpx.stream("GET", f"{served.url}/slow", timeout=60) as response:
        lines = response.iter_lines()
        assert next(lines) == "0"
        stopping = threading.Thread(target=served.stop)
        stopping.start()
        assert list(lines) == [str(index) for index in range(1, 10)]
    stopping.join(20)
    assert not served.running()


def test_while_it_drains_new_requests_get_a_503() -> None:
    served = inline_serve.start(APPLICATION)
    with httpx.Client(base_url=served.url, timeout=60) as other, httpx.stream("GET", f"{served.url}/slow") as response:
        lines = response.iter_lines()
        next(lines)
        stopping = threading.Thread(target=served.stop)
        stopping.start()
        refused = [other.get("/greeting")]
        while refused[-1].status_code == 200:
            refused.append(other.get("/greeting"))
        assert (refused[-1].status_code, refused[-1].json()["error"]["type"]) == (503, "server_error")
        assert int(refused[-1].headers["retry-after"]) >= 1
        assert list(lines)[-1] == "9"
    stopping.join(20)
    assert served.process.returncode == 0


def test_an_application_that_cannot_start_is_an_error_with_its_cause() -> None:
    with pytest.raises(StageError, match="broken on purpose"):
        inline_serve.start(Application("broken", "tests.cluster.applications:refuse"))


def test_the_arguments_arrive_as_json_values() -> None:
    arguments = {"greeting": {"deep": [1, None, "é\u2028"]}}
    served = inline_serve.start(Application("greeter", APPLICATION.factory, arguments))
    try:
        assert httpx.get(f"{served.url}/greeting").json()["greeting"] == json.loads(json.dumps(arguments))["greeting"]
    finally:
        served.stop()
