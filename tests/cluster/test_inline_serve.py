import json
import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest

from cluster import inline_serve
from cluster.application import answers, serve_foreground
from stages.base import Application, StageError

APPLICATION = Application("greeter", "tests.cluster.applications:create", {"greeting": "hello"})


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(condition, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_application_is_served_by_a_process_of_its_own_until_stopped():
    served = inline_serve.start(APPLICATION)
    try:
        answer = httpx.get(f"{served.url}/greeting").json()
        assert answer["greeting"] == "hello"
        assert answer["pid"] != os.getpid()
        assert served.url.startswith("http://127.0.0.1:")
        assert served.running()
    finally:
        served.stop()
    assert gone(answer["pid"])
    assert not served.running()
    assert not answers(served.url)


def test_stopping_finishes_the_answers_that_are_under_way():
    served = inline_serve.start(APPLICATION)
    with httpx.stream("GET", f"{served.url}/slow", timeout=20) as response:
        lines = response.iter_lines()
        assert next(lines) == "0"
        stopping = threading.Thread(target=served.stop)
        stopping.start()
        assert list(lines) == [str(index) for index in range(1, 10)]
    stopping.join(20)
    assert not served.running()


def test_an_application_that_cannot_start_says_why():
    with pytest.raises(StageError, match="made to be broken"):
        inline_serve.start(Application("broken", "tests.cluster.applications:refuse"))


SCRIPT = """
import sys
from cluster import inline_serve
from cluster.application import serve_foreground
from tests.cluster.test_inline_serve import APPLICATION
sys.exit(serve_foreground(inline_serve.start, APPLICATION, lambda url: print(url, flush=True)))
"""


@pytest.fixture
def foreground():
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True)
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_a_signal_drains_and_ends_with_0(foreground, number):
    process, url = foreground
    pid = httpx.get(f"{url}/greeting").json()["pid"]
    with httpx.stream("GET", f"{url}/slow", timeout=20) as response:
        lines = response.iter_lines()
        assert next(lines) == "0"
        process.send_signal(number)
        assert list(lines) == [str(index) for index in range(1, 10)]
    assert process.wait(20) == 0
    assert gone(pid)


def test_a_server_whose_parent_is_killed_ends(foreground):
    process, url = foreground
    pid = httpx.get(f"{url}/greeting").json()["pid"]
    process.kill()
    wait_until(lambda: gone(pid))


def test_a_server_that_ends_by_itself_ends_the_foreground():
    def start(application: Application):
        served = inline_serve.start(application)
        served.process.kill()
        return served

    with pytest.raises(StageError, match="ended by itself"):
        serve_foreground(start, APPLICATION, lambda url: None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_arguments_arrive_as_json_values():
    arguments = {"greeting": {"deep": [1, None, "é\u2028"]}}
    served = inline_serve.start(Application("greeter", APPLICATION.factory, arguments))
    try:
        assert httpx.get(f"{served.url}/greeting").json()["greeting"] == json.loads(json.dumps(arguments))["greeting"]
    finally:
        served.stop()
