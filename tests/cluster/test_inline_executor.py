"""The executor without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cluster.base import Executor, Launcher, Message, Send
from cluster.config import InlineCluster
from cluster.factory import executor
from stages.base import Demand, Stopped
from tests.cluster import work
from tests.cluster.support import run


@pytest.fixture
def inline() -> Iterator[Executor]:
    with executor(InlineCluster()) as started:
        yield started


def test_start_runs_the_work_in_this_process(inline: Executor) -> None:
    assert not inline.concurrent
    inline.start("step", work.process, Demand())
    (ended,) = inline.wait(0)
    assert ended.result["pid"] == os.getpid()  # type: ignore[union-attr]


def test_messages_come_before_the_outcome(inline: Executor) -> None:
    ended, messages = run(inline, partial(work.send_metrics, 3))
    assert [message.body["at"] for message in messages] == [0, 1, 2]
    assert ended.state == "done"


def test_messages_are_delivered_while_the_work_runs(inline: Executor) -> None:
    delivered: list[object] = []

    def send_and_count(launcher: Launcher, send: Send) -> int:
        send(Message("step", "note", {"text": "here"}))
        return len(delivered)

    inline.start("step", send_and_count, Demand(), delivered.append)
    (ended,) = inline.wait(0)
    assert ended.result == 1  # type: ignore[union-attr]


def test_a_gang_is_one_rank(inline: Executor) -> None:
    def index_and_size(rank: object) -> tuple[int, int]:
        rank.reporter.note("here")  # type: ignore[attr-defined]
        return rank.index, rank.size  # type: ignore[attr-defined]

    ended, messages = run(inline, partial(work.gang, index_and_size, (), 8, 0))
    assert ended.result == [(0, 1)]
    assert messages[0].body == {"text": "here"}


def test_outcomes_are_the_same_as_on_ray(inline: Executor) -> None:
    refused, _ = run(inline, partial(work.refuse, "no"))
    assert (refused.state, refused.error, refused.trace) == ("failed", "no", "")
    failed, _ = run(inline, partial(work.fail, ValueError("bad")))
    assert (failed.error.split(" (")[0], "in fail" in failed.trace) == ("ValueError: bad", True)
    interrupted, _ = run(inline, partial(work.fail, KeyboardInterrupt()))
    assert interrupted.state == "stopped"


def test_a_stop_request_reaches_the_work_and_does_not_affect_the_next(inline: Executor) -> None:
    def stop_itself(launcher: Launcher, send: Send) -> None:
        assert not send.stopping()
        inline.stop("step")
        if send.stopping():
            raise Stopped

    for _ in range(2):
        assert run(inline, stop_itself)[0].state == "stopped"


def test_wait_returns_empty_after_the_timeout(inline: Executor) -> None:
    began = time.monotonic()
    assert inline.wait(0.1) == []
    assert time.monotonic() - began >= 0.1


def test_neither_planning_nor_running_inline_imports_ray() -> None:
    program = (
        "import sys; from cluster.config import *; from cluster.factory import *; "
        "nodes(LocalCluster()); executor(InlineCluster()).close(); "
        "sys.exit(any(name in sys.modules for name in ('ray', 'torch', 'mlflow')))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=False).returncode == 0
