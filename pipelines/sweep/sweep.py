"""A sweep: checks and plans each job, runs what has to run side by side, and ends with a table and a page."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.base import ClusterError
from cluster.terminal_text import clean
from pipelines import config, provenance, terminal, variant, verbs
from pipelines.errors import disk_error
from pipelines.graph import Graph
from pipelines.override_problems import FORCED
from pipelines.redaction import redacted
from pipelines.session import Session
from pipelines.sweep import side_by_side
from pipelines.sweep.job import Begun, SweepJob, swept
from pipelines.sweep.results import Results, show
from pipelines.sweep_config import SweepConfig
from stages.base import StageError

if TYPE_CHECKING:
    from pipelines.tracking.spool import Operation
    from pipelines.tracking.sweep_run import SweepTracking

SIGNALLED = 128  # exit codes above it: stopped by a signal


class Sweep:
    """The task of a `--multirun`: Hydra's sweeper adds jobs and lets them run, in one batch or in several."""

    def __init__(self, where: Sequence[str], fixed: Sequence[str], session: Session) -> None:
        """`where`: what names directories of configurations. `fixed`: the overrides of the command line."""
        self.id = provenance.new_id()
        self.jobs: list[SweepJob] = []
        self.signal = 0
        self._where = list(where)
        self._command = list(dict.fromkeys([*where, *fixed]))  # `where` may repeat overrides
        self._session = session
        self._out = terminal.console()
        self._began = time.time()
        self._batch: list[SweepJob] = []
        self._base: Graph | None = None
        self._based = False
        self._operation: Operation | None = None
        self._tracking: SweepTracking | None = None
        self._said_of_tracking = ""

    # -- what the launcher calls --------------------------------------------------------------------------------

    def add(self, overrides: Sequence[str], composed: Any) -> None:
        """Add a job with the overrides that the sweeper gave and the configuration that Hydra composed of them."""
        job = self._added(overrides)
        try:
            job.prepared = verbs.prepare(job.overrides, composed, self._session)
        except ClusterError:  # it is the cluster of every job
            self.jobs.pop()
            self._batch.pop()
            raise
        except StageError as error:
            job.refuse(error)
            return
        if blocked := job.prepared.plan.blocked:
            job.state, job.exit_code = "refused", verbs.BLOCKED
            job.error = "\n".join(f"{step.step.name}: blocked: {step.reason}" for step in blocked)
        elif not job.prepared.plan.to_run:
            job.take_cached()

    def refuse(self, overrides: Sequence[str], error: StageError) -> None:
        """Add a job that has no configuration."""
        self._added(overrides).refuse(error)

    def run(self) -> list[float | None]:
        """Run the jobs that were added since the last call. The objective of each, if it has one."""
        batch, self._batch = self._batch, []
        waiting = [job for job in batch if job.state == "waiting"]
        self._say_batch(batch, waiting)
        for job in (job for job in batch if job.state in ("waiting", "cached")):
            self._open(job)
        while waiting and not self.signal:
            settings = _settings(waiting[0])
            packages = _packages(waiting[0])
            alike = [
                job for job in waiting if _settings(job).cluster == settings.cluster and _packages(job) == packages
            ]
            waiting = [job for job in waiting if job not in alike]
            spawns = any(job.prepared.plan.spawns for job in alike if job.prepared)
            executor = self._session.executor(settings.cluster, packages, spawns=spawns)
            self.signal = side_by_side.run(map(self._begun, alike), executor, settings.sweep.parallel)
        if self.signal:
            for job in batch:
                job.state = "stopped" if job.state == "waiting" else job.state
            raise SystemExit(SIGNALLED + self.signal)
        for job in batch:
            if job.state == "cached":
                self._begun(job).remember()
        metric = self.settings.metric
        return [job.objective(metric) for job in batch]

    # -- the end ------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> SweepConfig:
        """How the jobs are compared: as the first job that has a configuration says."""
        found = next((job.prepared for job in self.jobs if job.prepared), None)
        return found.composition.settings.sweep if found else SweepConfig()

    def finish(self) -> int:
        """Show the table, write the page, end the run in MLflow. Returns the largest exit code of the jobs."""
        if not self.jobs:
            return 0
        code = SIGNALLED + self.signal if self.signal else max(job.exit_code for job in self.jobs)
        state = "stopped" if self.signal else "failed" if code else "done"
        pipeline = next((job.prepared.plan.graph.name for job in self.jobs if job.prepared), "")
        command = provenance.command("run", ["--multirun", *self._command])
        prepared = next((job.prepared for job in self.jobs if job.prepared), None)
        folder = prepared.store.config.state / "runs" / self.id if prepared else None
        left = tuple(sorted(path for path in (folder / "sweeper").glob("*.*") if path.is_file())) if folder else ()
        times = self._began, time.time()
        results = Results(self.id, pipeline, self.settings, state, command, *times, tuple(self.jobs), left)
        compare = provenance.command("runs", ["list", f"sweep={self.id}", *provenance.places(self._command)])
        page = None
        if prepared is not None and folder is not None:
            from pipelines.sweep.page import write

            try:
                page = write(results, prepared.store, folder / "report.html")
            except OSError as error:
                self._say(f"There is no page of the sweep: {disk_error(error)}")
        show(self._out, results, page, compare)  # before the wait for MLflow
        if self._tracking is not None:
            with contextlib.suppress(OSError):
                files = [*left, *([page] if page else [])]
                self._tracking.finish(state, results.note(), results.parameters(), results.best(), files)
        return code

    # -- inside -------------------------------------------------------------------------------------------------

    def _added(self, overrides: Sequence[str]) -> SweepJob:
        own = [override.removeprefix(FORCED) for override in overrides if not override.startswith("hydra.")]
        job = SweepJob(len(self.jobs), [*self._where, *own], own)
        self.jobs.append(job)
        self._batch.append(job)
        return job

    def _open(self, job: SweepJob) -> None:
        """Prepare what the first job needs: the pipeline to compare with, and the sweep's run in MLflow."""
        if self._operation is not None or job.prepared is None:
            return
        from pipelines.tracking.sweep_run import SweepTracking, started

        self._base = variant.pipeline_alone(job.overrides)
        settings, state = _settings(job), job.prepared.store.config.state
        graph = job.prepared.plan.graph.name
        commit, _ = provenance.git_state(Path.cwd())
        command = provenance.command("run", ["--multirun", *self._command])
        name = f"{graph} · sweep of {' '.join(variant.short_keys(self._swept_keys()).values()) or 'one job'}"
        experiment = settings.tracking.experiment or graph
        self._operation = started(self.id, name, experiment, command, provenance.user(), commit)
        try:
            self._tracking = SweepTracking(settings.tracking, state, self.id, self._operation, self._say_tracking)
        except OSError as error:
            self._say(f"The sweep is not tracked: {disk_error(error)}")

    def _begun(self, job: SweepJob) -> Begun:
        assert self._operation is not None
        return Begun(job, self.id, self._operation, self._base, self._out, self._say, self._say_tracking)

    def _swept_keys(self) -> list[str]:
        return list(swept(self.jobs))

    def _say_batch(self, batch: Sequence[SweepJob], waiting: Sequence[SweepJob]) -> None:
        counts = {state: sum(job.state == state for job in batch) for state in ("cached", "refused")}
        parts = [f"{len(waiting)} to run", *(f"{count} {state}" for state, count in counts.items() if count)]
        self._say(f"Sweep {self.id}: {len(batch)} jobs, {', '.join(parts)}")
        for job in batch:
            if job.state == "refused":
                self._say(f"Job {job.number} is refused: {job.error}")

    def _say_tracking(self, text: str) -> None:
        """Show what one of the jobs has to say of MLflow. The others have the same to say."""
        if text != self._said_of_tracking:
            self._said_of_tracking = text
            self._say(f"Tracking: {redacted(text)}")

    def _say(self, text: str) -> None:
        from rich.text import Text

        self._out.print(Text(clean(text)), soft_wrap=True)


def _settings(job: SweepJob) -> config.Settings:
    assert job.prepared is not None
    return job.prepared.composition.settings


def _packages(job: SweepJob) -> tuple[Path, ...]:
    assert job.prepared is not None
    return tuple(job.prepared.composition.graph.packages())
