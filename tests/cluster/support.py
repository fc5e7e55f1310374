"""Helpers for the tests of the executors."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable

from cluster.base import Executor, Message, Outcome, Work
from stages.base import Demand, Resources

LIMIT_S = 120.0
SUPERVISOR = Demand(task=Resources(cpus=0), ranks=2)


def run(executor: Executor, work: Work, demand: Demand = SUPERVISOR) -> tuple[Outcome, list[Message]]:
    """Run work to its end."""
    executor.start("step", work, demand)
    return outcome(executor)


def outcome(executor: Executor) -> tuple[Outcome, list[Message]]:
    """The next outcome, and the messages before it."""
    messages: list[Message] = []
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        for event in executor.wait(0.5):
            if isinstance(event, Outcome):
                return event, messages
            messages.append(event)
    raise TimeoutError(f"no outcome; messages: {messages}")


def outcomes(executor: Executor, count: int) -> list[Outcome]:
    """The next `count` outcomes, several of which may arrive at the same time."""
    found: list[Outcome] = []
    end = time.monotonic() + LIMIT_S
    while len(found) < count:
        assert time.monotonic() < end, f"only these outcomes: {found}"
        found += [event for event in executor.wait(0.5) if isinstance(event, Outcome)]
    return found


def until(executor: Executor, enough: Callable[[list[Message]], bool]) -> list[Message]:
    """The messages of the running work, until `enough` of them have arrived."""
    messages: list[Message] = []
    end = time.monotonic() + LIMIT_S
    while not enough(messages):
        assert time.monotonic() < end, f"only these messages: {messages}"
        for event in executor.wait(0.5):
            assert isinstance(event, Message), event
            messages.append(event)
    return messages


def gone(pids: list[int], within_s: float = 30.0) -> bool:
    """Whether these processes end in time. A zombie process counts as ended."""
    end = time.monotonic() + within_s
    while any(map(_is_running, pids)):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def address(output: Iterable[str]) -> str:
    """The address that a server in the foreground prints."""
    for line in output:
        if found := re.search(r"http://[\d.]+:\d+", line):
            return found[0]
    raise AssertionError("no address was printed")


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
