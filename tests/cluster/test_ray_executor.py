"""What only the executor on Ray does: it places work by its resources, and says where Ray's logs are."""

from __future__ import annotations

import os
from functools import partial

import pytest

from cluster.base import Executor
from stages.base import Demand, Resources
from tests.cluster import work
from tests.cluster.support import gone, outcome, run, until

pytestmark = pytest.mark.ray


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


def test_lost_work_is_reported_with_the_place_of_rays_logs(ray_session: Executor) -> None:
    ray_session.start("step", work.send_pid_and_wait, Demand())
    os.kill(until(ray_session, bool)[0].body["pid"], 9)
    assert "log is in" in outcome(ray_session)[0].error
