"""The runner: steps that stop unasked, and steps that end with their process, their node or their cluster."""

from __future__ import annotations

import os
import signal

import pytest

from cluster.base import Deliver, Outcome, Work
from pipelines.store import Store
from stages.base import Demand
from tests.pipelines.demo import six_steps
from tests.pipelines.support import ThreadExecutor, run, states
from tests.pipelines.test_runner import ALL, summary_of

pytestmark = pytest.mark.usefixtures("demo_stages")


def test_a_step_that_stops_unasked_fails_the_run(store: Store) -> None:
    class Stopping(ThreadExecutor):
        def start(self, step: str, work: Work, demand: Demand, deliver: Deliver | None = None) -> None:
            self._events.put(Outcome(step, "stopped"))

    summary, runner, _ = run(store, six_steps(), Stopping())
    assert summary.state == "failed"
    assert runner.exit_code == 1


def test_a_step_whose_cluster_ends_with_the_same_signal_is_stopped(store: Store) -> None:
    """The signal reaches the whole process group: no step counts as failed, and the next run resumes."""

    class Ends(ThreadExecutor):
        def start(self, step: str, work: Work, demand: Demand, deliver: Deliver | None = None) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            self._events.put(Outcome(step, "lost", error="the head is gone"))

    summary, runner, _ = run(store, six_steps(), Ends())
    assert (summary.state, runner.exit_code) == ("stopped", 128 + signal.SIGTERM)
    assert {step.state for step in summary.steps} == {"stopped"}
    assert not any(step.error for step in summary.steps)
    assert states(run(store, six_steps())[0]) == ALL.format("done")


class Losing(ThreadExecutor):
    """The first `losses` starts of step a end with the loss of its process, and of its node if `node`."""

    def __init__(self, losses: int, node: bool) -> None:
        super().__init__()
        self._losses = losses
        self._node = node

    def start(self, step: str, work: Work, demand: Demand, deliver: Deliver | None = None) -> None:
        if step == "a" and self._losses:
            self._losses -= 1
            return self._events.put(Outcome(step, "lost", error="it is gone.", node_lost=self._node))
        return super().start(step, work, demand, deliver)


def test_a_step_that_is_lost_with_its_node_is_started_again(store: Store) -> None:
    summary, runner, recorded = run(store, six_steps(), Losing(3, node=True))
    assert (states(summary), runner.exit_code) == (ALL.format("done"), 0)
    assert sum("started again" in note for note in recorded.notes) == 3


@pytest.mark.parametrize(("losses", "node"), [(4, True), (1, False)], ids=["too often", "its process alone"])
def test_other_losses_fail_the_step(store: Store, losses: int, node: bool) -> None:
    summary, _, _ = run(store, six_steps(), Losing(losses, node))
    assert summary_of(summary, "a").state == "failed"
    assert states(run(store, six_steps())[0]).startswith("a:done"), "the lease was released"


def test_losses_of_nodes_do_not_count_as_retries(store: Store) -> None:
    class Both(Losing):
        def start(self, step: str, work: Work, demand: Demand, deliver: Deliver | None = None) -> None:
            if step == "a" and self._losses == 1:
                self._losses -= 1
                return self._events.put(Outcome(step, "failed", error="once"))
            return super().start(step, work, demand, deliver)

    steps = six_steps()
    steps["a"]["retries"] = 1
    summary, _, _ = run(store, steps, Both(4, node=True))
    assert states(summary) == ALL.format("done")
