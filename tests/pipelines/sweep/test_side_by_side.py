"""Several runs on one executor: side by side where there is room, and each gets its events."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipelines import runner
from pipelines.graph import build
from pipelines.plan import make
from pipelines.provenance import Provenance
from pipelines.runner import Runner
from pipelines.store import Store
from pipelines.summary import RunSummary
from pipelines.sweep.side_by_side import Part, run
from tests.pipelines.support import Recorder, ThreadExecutor, states

pytestmark = pytest.mark.usefixtures("demo_stages")


@dataclass
class Job:
    """A run of some steps."""

    name: str
    store: Store
    steps: dict[str, Any]
    recorder: Recorder = field(default_factory=Recorder)
    summary: RunSummary | None = None
    abandoned: bool = False

    def begin(self, part: Part) -> Runner:
        plan = make(build("demo", self.steps), self.store, self.steps, (), lambda: part.nodes)
        provenance = Provenance(self.name, "bloomline run", None, False, {})
        return Runner(plan, self.store, part, provenance, "", [self.recorder], part.others)

    def finish(self, summary: RunSummary, exit_code: int) -> None:
        self.summary = summary

    def abandon(self) -> None:
        self.abandoned = True


def jobs(store: Store, trace: Path, count: int, **fields: Any) -> list[Job]:
    """Jobs that share the step `a`. `b` of each leaves a trace of when it ran."""
    found = []
    for number in range(count):
        b = {"stage": "join", "texts": ["a"], "separator": str(number), "trace": str(trace), **fields}
        found.append(Job(f"job-{number}", store, {"a": {"stage": "make"}, "b": b}))
    return found


def deepest(trace: Path) -> int:
    """How many steps ran at the same time at most."""
    events = sorted((float(at), kind) for _, kind, at, _ in map(str.split, trace.read_text().splitlines()))
    depth, found = 0, 0
    for _, kind in events:
        depth += 1 if kind == "begins" else -1
        found = max(found, depth)
    return found


@pytest.mark.parametrize(("parallel", "cpus", "at_once"), [(4, 2, 2), (1, 4, 1), (3, 4, 3)])
def test_jobs_run_side_by_side_as_far_as_there_is_room(
    store: Store, tmp_path: Path, parallel: int, cpus: int, at_once: int
) -> None:
    trace = tmp_path / "trace"
    made = jobs(store, trace, 4, seconds=0.5, company=at_once)
    assert run(made, ThreadExecutor(cpus=cpus), parallel) == 0
    assert deepest(trace) == at_once
    notes = {note for job in made for note in job.recorder.notes}
    waits = any("waits for room on the cluster, in use by the steps of other jobs" in note for note in notes)
    assert waits == (parallel > at_once), notes
    summaries = [job.summary for job in made if job.summary]
    assert [summary.run_id for summary in summaries] == [f"job-{number}" for number in range(4)]
    assert sorted(states(summary).split()[0] for summary in summaries) == ["a:cached"] * 3 + ["a:done"]
    assert all(states(summary).endswith("b:done") for summary in summaries)


def test_what_another_job_has_made_meanwhile_needs_no_room(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "ROOM_POLL_S", 0.05)
    made = jobs(store, tmp_path / "trace", 2, seconds=0.5)
    made[1].recorder = made[0].recorder
    assert run(made, ThreadExecutor(cpus=1), 2) == 0
    events = made[0].recorder.events
    assert events.index("a cached") < events.index("b done"), "it is taken while the only CPU is in use"


def test_steps_that_run_one_after_the_other_do_not_wait_for_room(store: Store, tmp_path: Path) -> None:
    executor = ThreadExecutor(cpus=1)
    executor.concurrent = False
    (job,) = jobs(store, tmp_path / "trace", 1)
    job.steps["c"] = {"stage": "make", "text": "c"}
    assert run([job], executor, 1) == 0
    assert job.summary is not None
    assert (states(job.summary), job.recorder.notes) == ("a:done b:done c:done", [])


def test_each_run_has_the_events_of_its_steps(store: Store, tmp_path: Path) -> None:
    made = jobs(store, tmp_path / "trace", 3)
    made[1].steps["b"]["fail"] = "stage"
    run(made, ThreadExecutor(), 3)
    ends = [job.recorder.events[-1] for job in made]
    assert ends == ["run done", "run failed", "run done"]
    assert [job.recorder.events.count("b failed") for job in made] == [0, 1, 0]


def test_a_signal_stops_every_run_and_begins_no_other(store: Store, tmp_path: Path) -> None:
    made = jobs(store, tmp_path / "trace", 5, seconds=20)
    timer = threading.Timer(1.5, signal.raise_signal, [signal.SIGINT])
    timer.start()
    try:
        assert run(made, ThreadExecutor(cpus=2), 2) == signal.SIGINT
    finally:
        timer.cancel()
    found = [job.summary.state if job.summary else None for job in made]
    assert found == ["stopped", "stopped", None, None, None]


def test_what_a_job_opened_is_closed_if_another_breaks(store: Store, tmp_path: Path) -> None:
    made = jobs(store, tmp_path / "trace", 2)

    def broken(part: Part) -> Runner:
        raise OSError("no space")

    made[1].begin = broken  # type: ignore[method-assign]
    with pytest.raises(OSError, match="no space"):
        run(made, ThreadExecutor(), 2)
    assert [job.abandoned for job in made] == [True, True]
