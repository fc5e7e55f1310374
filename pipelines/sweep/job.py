"""One job of a sweep: how it is begun, what it came to, and what it is compared by."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import provenance, step_state, variant, verbs
from pipelines.errors import BloomlineError, disk_error
from pipelines.graph import Graph
from pipelines.logs import kept_log
from pipelines.logs.collector import Collector
from pipelines.observer import Observer
from pipelines.provenance import Provenance
from pipelines.redaction import redacted
from pipelines.run_history import History
from pipelines.runner import Runner
from pipelines.summary import RunSummary, StepSummary
from pipelines.sweep.side_by_side import Part
from pipelines.terminal import Display
from pipelines.tracking.spool import Operation
from pipelines.tracking.tracker import Tracking
from pipelines.verbs import Prepared
from stages.base import StageError

if TYPE_CHECKING:
    from rich.console import Console

FINISHED = ("done", "cached")


@dataclass
class SweepJob:
    """One job. It is `waiting` until it is begun; `refused` if its configuration is not valid or cannot be run."""

    number: int
    overrides: list[str]  # that repeat it
    given: list[str]  # of those, what the sweeper chose
    prepared: Prepared | None = None
    state: str = "waiting"
    exit_code: int = 0
    error: str = ""
    run_id: str | None = None
    seconds: float | None = None
    steps: Sequence[StepSummary] = ()
    report: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def swept(self) -> Mapping[str, str]:
        """The overrides of the job, by key."""
        return dict(variant.given(self.given))

    @property
    def described(self) -> str:
        """What the job computes, as one short line."""
        return variant.described(variant.of_work(self.swept)) or "as the pipeline says"

    def refuse(self, error: StageError) -> None:
        self.state, self.error = "refused", redacted(str(error))
        self.exit_code = error.exit_code if isinstance(error, BloomlineError) else 1

    def objective(self, metric: tuple[str, str] | None) -> float | None:
        """The value of a metric of a step; None if the job has none.

        A job that did not finish has none, whatever its steps had measured: a training that diverged must not be the
        best because of a number from before.
        """
        if self.state not in FINISHED:
            return None
        step, name = metric or ("", "")
        found = next((one.metrics.get(name) for one in self.steps if one.name == step), None)
        return found if found is not None and not math.isnan(found) else None

    def headlines(self) -> dict[str, float]:
        """The headlines of the last steps, those that no other step reads, by `step metric`."""
        read = {name for step in self.steps for name in step.inputs}
        last = [step for step in self.steps if step.name not in read and step.headline] or [
            step for step in self.steps if step.headline
        ][-1:]
        return {f"{step.name} {step.headline[0]}": step.headline[1] for step in last if step.headline}

    def take_cached(self) -> None:
        """Take the results of a job of which everything is cached, and until `remember` the run that made the last."""
        assert self.prepared is not None
        steps = [step for step in self.prepared.plan.steps.values() if step.state == "cached" and step.selected]
        self.state, self.seconds = "cached", 0.0
        self.steps = [step_state.cached(step, self.prepared.store) for step in steps]
        records = [step.record for step in steps if step.record]
        if records:
            self.run_id = max(records, key=lambda record: record.created).run_id
            report = self.prepared.store.config.state / "runs" / self.run_id / "report.html"
            self.report = report if report.exists() else None


@dataclass
class Begun:
    """A job on its way to a result: what side_by_side runs."""

    job: SweepJob
    sweep: str  # id
    operation: Operation  # makes the run of the sweep in MLflow
    base: Graph | None
    out: Console
    say: Callable[[str], None]
    say_tracking: Callable[[str], None]
    tracking: Tracking | None = field(default=None, init=False)
    logs: Collector | None = field(default=None, init=False)
    history: History | None = field(default=None, init=False)

    def begin(self, part: Part) -> Runner:
        prepared, made_by, tracking = self._open()
        self.job.state = "running"
        self.logs = Collector(prepared.composition.settings.logs, prepared.store, made_by.run_id)
        self.history = History(prepared.store)
        display = Display(self.out, job=f"{self.job.number}  ")
        observers: list[Observer] = [tracking, self.logs, self.history, display]
        self.say(f"Job {self.job.number} begins: {self.job.described}")
        config_yaml = prepared.composition.yaml()
        return Runner(prepared.plan, prepared.store, part, made_by, config_yaml, observers, part.others)

    def finish(self, summary: RunSummary, exit_code: int) -> None:
        job = self.job
        job.state, job.exit_code, job.seconds, job.steps = summary.state, exit_code, summary.seconds, summary.steps
        job.error = "\n".join(f"{step.name}: {step.error}" for step in summary.steps if step.error)
        assert job.prepared is not None
        self._close(kept_log.noting_silence(summary, job.prepared.store))

    def remember(self) -> None:
        """Enter a job of which everything is cached as a run of this sweep, without executing anything.

        In MLflow it is one run with the results of its steps, which have their own runs where they were made.
        """
        try:
            prepared, made_by, tracking = self._open()
        except OSError as error:  # a store that is read-only: the results are shown all the same
            self.job.notes = (f"Cached jobs have no run in this sweep: {disk_error(error)}",)
            return
        config_yaml, pipeline = prepared.composition.yaml(), prepared.plan.graph.name
        summary = RunSummary.of(made_by, pipeline, self.job.steps, config_yaml, "done", time.time())
        observers: tuple[Observer, ...] = (tracking, History(prepared.store))
        for observer in observers:
            observer.run_started(summary)
            observer.run_finished(summary)
        self._close(summary)

    def abandon(self) -> None:
        if self.logs is not None:
            self.logs.close()
        if self.history is not None:
            self.history.close()
        if self.tracking is not None:
            self.tracking.close("failed")

    def _open(self) -> tuple[Prepared, Provenance, Tracking]:
        """Give the job its own run, and begin to track it."""
        job, prepared = self.job, self.job.prepared
        assert prepared is not None
        found = variant.of(prepared.composition, job.overrides, self.base)
        made_by = provenance.collect("run", job.overrides, found, self.sweep)
        settings, state = prepared.composition.settings, prepared.store.config.state
        self.tracking = Tracking.open(settings.tracking, state, made_by.run_id, self.operation, self.say_tracking)
        job.run_id = made_by.run_id
        return prepared, made_by, self.tracking

    def _close(self, summary: RunSummary) -> None:
        job = self.job
        assert job.prepared is not None
        assert self.tracking is not None
        job.report, unwritten = verbs.write_report(summary, job.prepared.store, self.tracking)
        tracking, self.tracking = self.tracking, None
        job.notes = (*unwritten, *(self.logs.notes() if self.logs else ()), *tracking.close(summary.state))


def swept(jobs: Sequence[SweepJob]) -> Mapping[str, list[str]]:
    """The keys whose values differ between the jobs, with the value of each job ("" where it has none)."""
    given = [job.swept for job in jobs]
    keys = dict.fromkeys(key for values in given for key in values)
    found = {key: [values.get(key, "") for values in given] for key in keys}
    return {key: values for key, values in found.items() if len({*values}) > 1}
