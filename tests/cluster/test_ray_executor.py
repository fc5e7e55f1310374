"""The executor on Ray: outcomes, messages, stopping, killing, and what happens to a process that dies."""

from __future__ import annotations

import os
import time
from functools import partial

import pytest

from cluster.base import Executor
from stages.base import Demand, Resources, Stopped
from tests.cluster import work
from tests.cluster.support import gone, outcome, outcomes, run, until

pytestmark = pytest.mark.ray


def test_every_message_arrives_in_order(ray_session: Executor) -> None:
    ended, messages = run(ray_session, partial(work.send_metrics, 10_000))
    assert (ended.state, ended.result) == ("done", 10_000)
    assert [message.body["at"] for message in messages] == list(range(10_000))


def test_each_piece_of_work_has_its_own_process_limited_to_its_resources(ray_session: Executor) -> None:
    asked = Demand(task=Resources(cpus=2))
    first, second = (run(ray_session, work.process, asked)[0].result for _ in range(2))
    assert first["pid"] != second["pid"]
    assert os.getpid() not in (first["pid"], second["pid"])
    assert first["CUDA_VISIBLE_DEVICES"] == ""
    assert first["OMP_NUM_THREADS"] == os.environ.get("OMP_NUM_THREADS", "2")


def test_pieces_of_work_run_concurrently(ray_session: Executor) -> None:
    for name in ("one", "two"):
        ray_session.start(name, work.send_pid_and_wait, Demand(task=Resources(cpus=1)))
    messages = until(ray_session, lambda messages: len(messages) == 2)
    assert len({message.body["pid"] for message in messages}) == 2
    for name in ("one", "two"):
        ray_session.stop(name)
    assert {ended.step for ended in outcomes(ray_session, 2)} == {"one", "two"}


def test_a_stage_error_has_no_traceback_and_other_exceptions_have_one(ray_session: Executor) -> None:
    refused, _ = run(ray_session, partial(work.refuse, "no such corpus"))
    assert (refused.state, refused.error, refused.trace) == ("failed", "no such corpus", "")
    failed, _ = run(ray_session, partial(work.fail, ValueError("bad value")))
    assert (failed.state, failed.error.split(" (")[0]) == ("failed", "ValueError: bad value")
    assert "in fail" in failed.trace
    left, _ = run(ray_session, partial(work.fail, SystemExit(3)))
    assert (left.state, left.error.split(" (")[0]) == ("failed", "SystemExit: 3")
    stopped, _ = run(ray_session, partial(work.fail, Stopped()))
    assert stopped.state == "stopped"


def test_work_or_a_result_that_cannot_be_pickled_is_a_failure(ray_session: Executor) -> None:
    ended, _ = run(ray_session, partial(work.fail, (item for item in [0])))  # type: ignore[arg-type]
    assert ended.state == "failed"
    assert "generator" in ended.error
    ended, _ = run(ray_session, work.unreadable)
    assert ended.state == "failed"
    assert "generator" in ended.error + ended.trace


def test_stop_reaches_the_work(ray_session: Executor) -> None:
    ray_session.start("step", work.send_pid_and_wait, Demand())
    until(ray_session, bool)
    ray_session.stop("step")
    assert outcome(ray_session)[0].state == "stopped"


def test_work_whose_process_is_killed_is_lost(ray_session: Executor) -> None:
    ray_session.start("step", work.send_pid_and_wait, Demand())
    pid = until(ray_session, bool)[0].body["pid"]
    os.kill(pid, 9)
    ended, _ = outcome(ray_session)
    assert ended.state == "lost"
    assert "killed" in ended.error
    assert "log is in" in ended.error


def test_kill_ends_the_process_and_frees_its_resources(ray_session: Executor) -> None:
    everything = Demand(task=Resources(cpus=2))
    ray_session.start("step", work.send_pid_and_wait, everything)
    pid = until(ray_session, bool)[0].body["pid"]
    ray_session.kill("step")
    assert outcome(ray_session)[0].state == "stopped"
    assert gone([pid])
    assert run(ray_session, partial(work.send_metrics, 0), everything)[0].state == "done"


def test_work_waits_for_free_resources_and_can_be_stopped_while_waiting(ray_session: Executor) -> None:
    everything = Demand(task=Resources(cpus=2))
    ray_session.start("first", work.send_pid_and_wait, everything)
    until(ray_session, bool)
    ray_session.start("never", partial(work.send_metrics, 1), everything)
    ray_session.start("second", partial(work.send_metrics, 1), everything)
    ray_session.stop("never")
    ended, _ = outcome(ray_session)
    assert (ended.step, ended.state) == ("never", "stopped")
    ray_session.stop("first")
    assert outcome(ray_session)[0].step == "first"
    ended, messages = outcome(ray_session)
    assert (ended.step, ended.state, len(messages)) == ("second", "done", 1)


@pytest.mark.parametrize("asked", [Resources(cpus=3), Resources(gpus=1), Resources(custom={"disk": 1})])
def test_resources_that_no_node_has_are_refused_at_once(ray_session: Executor, asked: Resources) -> None:
    ended, _ = run(ray_session, partial(work.send_metrics, 1), Demand(task=asked))
    assert ended.state == "failed"
    assert "no node has" in ended.error
    assert "2 CPUs" in ended.error


def test_wait_returns_empty_after_the_timeout(ray_session: Executor) -> None:
    began = time.monotonic()
    assert ray_session.wait(0.2) == []
    assert time.monotonic() - began >= 0.2
