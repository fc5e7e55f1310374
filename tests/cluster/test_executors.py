"""What the executors with processes have in common: outcomes, messages, stopping, killing, and a process that dies."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial

import pytest

from cluster.base import Executor
from cluster.config import LocalCluster
from cluster.factory import executor
from cluster.process_executor import ProcessExecutor
from stages.base import Demand, Resources, Stopped
from tests.cluster import work
from tests.cluster.support import gone, outcome, outcomes, run, until


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with executor(LocalCluster(cpus=2, gpus=0), spawns=False) as started:
        assert isinstance(started, ProcessExecutor)
        yield started


@pytest.fixture(params=["processes", pytest.param("ray_session", marks=pytest.mark.ray)])
def each(request: pytest.FixtureRequest) -> Executor:
    found: Executor = request.getfixturevalue(request.param)
    return found


def test_every_message_arrives_in_order(each: Executor) -> None:
    ended, messages = run(each, partial(work.send_metrics, 10_000))
    assert (ended.state, ended.result) == ("done", 10_000)
    assert [message.body["at"] for message in messages] == list(range(10_000))


def test_each_piece_of_work_has_its_own_process_limited_to_its_resources(each: Executor) -> None:
    asked = Demand(task=Resources(cpus=2))
    first, second = (run(each, work.process, asked)[0].result for _ in range(2))
    assert first["pid"] != second["pid"]
    assert os.getpid() not in (first["pid"], second["pid"])
    assert first["CUDA_VISIBLE_DEVICES"] == ""
    assert first["OMP_NUM_THREADS"] == os.environ.get("OMP_NUM_THREADS", "2")


def test_pieces_of_work_run_concurrently(each: Executor) -> None:
    for name in ("one", "two"):
        each.start(name, work.send_pid_and_wait, Demand(task=Resources(cpus=1)))
    messages = until(each, lambda messages: len(messages) == 2)
    assert len({message.body["pid"] for message in messages}) == 2
    for name in ("one", "two"):
        each.stop(name)
    assert {ended.step for ended in outcomes(each, 2)} == {"one", "two"}


def test_a_stage_error_has_no_traceback_and_other_exceptions_have_one(each: Executor) -> None:
    refused, _ = run(each, partial(work.refuse, "no such corpus"))
    assert (refused.state, refused.error, refused.trace) == ("failed", "no such corpus", "")
    failed, _ = run(each, partial(work.fail, ValueError("bad value")))
    assert (failed.state, failed.error.split(" (")[0]) == ("failed", "ValueError: bad value")
    assert "in fail" in failed.trace
    left, _ = run(each, partial(work.fail, SystemExit(3)))
    assert (left.state, left.error.split(" (")[0]) == ("failed", "SystemExit: 3")
    stopped, _ = run(each, partial(work.fail, Stopped()))
    assert stopped.state == "stopped"


def test_work_or_a_result_that_cannot_be_pickled_is_a_failure(each: Executor) -> None:
    ended, _ = run(each, partial(work.fail, (item for item in [0])))  # type: ignore[arg-type]
    assert ended.state == "failed"
    assert "generator" in ended.error
    ended, _ = run(each, work.unreadable)
    assert ended.state == "failed"
    assert "generator" in ended.error + ended.trace


def test_stop_reaches_the_work(each: Executor) -> None:
    each.start("step", work.send_pid_and_wait, Demand())
    until(each, bool)
    each.stop("step")
    assert outcome(each)[0].state == "stopped"


def test_work_whose_process_is_killed_is_lost(each: Executor) -> None:
    each.start("step", work.send_pid_and_wait, Demand())
    pid = until(each, bool)[0].body["pid"]
    os.kill(pid, 9)
    ended, _ = outcome(each)
    assert ended.state == "lost"
    assert "killed" in ended.error


def test_wait_returns_empty_after_the_timeout(each: Executor) -> None:
    began = time.monotonic()
    assert each.wait(0.2) == []
    assert time.monotonic() - began >= 0.2


def test_kill_ends_the_process(each: Executor) -> None:
    each.start("step", work.send_pid_and_wait, Demand())
    pid = until(each, bool)[0].body["pid"]
    each.kill("step")
    assert outcome(each)[0].state == "stopped"
    assert gone([pid])
