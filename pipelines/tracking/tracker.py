"""The tracking of a run: an observer of the runner that writes operations for MLflow into the spool.

Nothing here imports mlflow, waits for it, or raises for its sake. One parent run for the pipeline, one child run a
step that runs (named "02-pretrain" by its place). A cached step is a link in the parent's description.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import psutil

from cluster.base import Message
from cluster.submitted_job import in_submitted_job
from pipelines import provenance
from pipelines.process_identity import this_process
from pipelines.redaction import redacted
from pipelines.report.graph_drawing import graph_svg
from pipelines.summary import RunSummary, StepSummary
from pipelines.tracking import leftovers, operations
from pipelines.tracking.operations import PARENT, Point, milliseconds
from pipelines.tracking.sender import Sender
from pipelines.tracking.spool import Operation, Spool, set_aside
from pipelines.tracking.tracking_config import TrackingConfig

FIRST_SAMPLE_S = 1.0  # so that a short step has one too


class Tracking:
    """The tracking of one run. Called from the runner's thread."""

    def __init__(
        self,
        config: TrackingConfig,
        root: Path,
        spool: Spool,
        sweep: Operation | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._config = config
        self._sweep = sweep
        self._root = root
        self._spool = spool
        # What would end with the command, or begin again for each job of a sweep, is not left to another process.
        may_leave = config.in_background and sweep is None and not in_submitted_job() and os.getpid() != 1
        self._say: Callable[[str], None] = lambda text: say(redacted(text))
        self._sender = Sender(config, root, spool, may_leave, self._say)
        self._labels: dict[str, str] = {}
        self._run: RunSummary | None = None  # as it began
        self._open: dict[str, StepSummary] = {}  # started, not finished
        self._made: dict[str, StepSummary] = {}
        self._last: dict[str, dict[str, Point]] = {}  # step -> metric -> last point
        self._parent_open = False
        self._samples = 0
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="system-metrics", daemon=True)
        self._broken: str | None = None  # the spool itself can't be written

    @classmethod
    def open(
        cls,
        config: TrackingConfig,
        root: Path,
        run_id: str,
        sweep: Operation | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> Self:
        """The tracking of the run `run_id`, its spool under `root`/runs/`run_id`. Raises OSError if that can't be.

        `sweep`: the operation that makes the run of the sweep under which this one hangs.
        `say`: shows a sentence at once, from any thread: trouble begins, or it is over.
        """
        spool = Spool.open(root / "runs" / run_id / "spool", config.target)
        if spool is None:
            raise FileExistsError(f"run {run_id} is tracked by another process")
        tracking = cls(config, root, spool, sweep, say)
        tracking._sender.start()
        tracking._sampler.start()
        return tracking

    # -- an observer of the runner ------------------------------------------------------------------------------

    def run_started(self, run: RunSummary) -> None:
        width = max(2, len(str(len(run.steps))))
        self._run = run
        self._labels = {step.name: f"{index:0{width}d}-{step.name}" for index, step in enumerate(run.steps, 1)}
        self._parent_open = True
        experiment = self._config.experiment or run.pipeline
        started = operations.run_started(run, this_process())
        self._put({**operation, "experiment": experiment, "sweep": self._sweep} for operation in started)

    def step_started(self, step: StepSummary) -> str | None:
        """Open the step's run. Its id in MLflow if that is known by now: see `mlflow_run_id`."""
        if self._run is not None and step.name not in self._open:
            self._open[step.name] = step
            label = self._labels.get(step.name, step.name)
            self._put(operations.step_started(step, label, self._run, milliseconds(time.time())))
            self._put(operations.inputs(step, self._made))
        return self.mlflow_run_id(step.name)

    def step_message(self, message: Message) -> None:
        body = message.body
        if message.kind == "metrics":
            points = operations.metric_points(body["values"], body.get("at"), body.get("time") or time.time())
            self._last.setdefault(message.step, {}).update({point[0]: point for point in points})
            self._put([operations.log(message.step, points)])
        elif message.kind in ("figure", "page"):
            self._put_file(message.step, Path(body["path"]), f"{message.kind}s")

    def step_finished(self, step: StepSummary, record: object = None) -> None:
        """The step is done, cached, failed or stopped. One that never began has no run."""
        if step.state in ("done", "cached"):
            self._made[step.name] = step
        if step.state == "cached" and step.name not in self._open:
            self._put(operations.step_cached(step, self._made))
        if self._open.pop(step.name, None) is None:
            return
        now = time.time()
        last = self._last.pop(step.name, {})
        final = {point[0]: point for point in operations.metric_points(step.metrics, None, now)}
        points = [last.get(name, point) for name, point in final.items()]
        if step.state == "cached":
            for folder, files in (("figures", step.figures), ("pages", step.pages)):
                for path in files.values():
                    self._put_file(step.name, path, folder)
        if step.traceback is not None:
            self._put_file(step.name, step.traceback, None)
        self._put(operations.step_finished(step, points, self._made, milliseconds(now)))

    def run_finished(self, run: RunSummary) -> None:
        self._parent_open = False
        self._put(operations.run_finished(run, graph_svg(run.steps)))

    # -- not part of the protocol ------------------------------------------------------------------------------------

    def attach(self, path: Path) -> None:
        """Attach a file, such as the report, to the pipeline's run. May be called after `run_finished`."""
        self._put_file(PARENT, path, None)

    @property
    def url(self) -> str | None:
        """The page of the pipeline's run in an MLflow server, or the server's own until it has given the run an id.

        None for a local database, which has no address.
        """
        if self._config.kind == "local":
            return None
        server = self._config.shown(self._root).rstrip("/")
        experiment, run = self._spool.ids.get("experiment"), self.mlflow_run_id(PARENT)
        return f"{server}/#/experiments/{experiment}/runs/{run}" if experiment and run else server

    def mlflow_run_id(self, step: str) -> str | None:
        """MLflow's id for the run of a step, once MLflow has given one."""
        found = self._spool.ids.get("runs", {}).get(step)
        return found if isinstance(found, str) else None

    def notes(self) -> tuple[str, ...]:
        """Notes about the tracking for the end of the run; none if everything was sent."""
        found = []
        if self._broken:
            found.append(f"The tracking is incomplete: {self._broken}.")
        if self._sender.trouble:
            command = provenance.command("ui", self._run.places if self._run else ())
            found.append(
                f"MLflow did not receive everything: {self._sender.trouble}. The rest is kept in "
                f"{self._spool.directory}, and the next run sends it, or: {command}"
            )
        if self._sender.refused:
            refused = self._spool.directory / "refused.jsonl"
            found.append(f"MLflow rejected {self._sender.refused} entries: see {refused}.")
        if self._sender.recovered:
            found.append(leftovers.sent(self._sender.recovered))
        if self._sender.abandoned:
            runs = "1 run" if self._sender.abandoned == 1 else f"{self._sender.abandoned} runs"
            found.append(f"Closed {runs} in MLflow whose process has ended.")
        return (*found, *self._sender.not_taken, *set_aside(self._root, self._config.target))

    def close(self, state: str = "failed") -> tuple[str, ...]:
        """End the tracking; `state` is for a run that never finished. Returns the last notes."""
        self._done.set()
        self._sampler.join()
        if self._parent_open:
            self._parent_open = False
            self._put([operations.closed(state, milliseconds(time.time()))])
        ended = self._sender.stop()
        notes = self.notes()
        if ended:
            self._spool.close()
        if self._sender.left:
            with contextlib.suppress(OSError):  # then the next run sends it
                leftovers.send_in_background(self._config, self._root)
        return notes

    # -- the spool ----------------------------------------------------------------------------------------------

    def _put(self, entries: Iterable[Operation]) -> None:
        try:
            for operation in entries:
                self._spool.append(operation)
        except OSError as error:  # a full disk must not end a run
            self._break(f"{error.strerror}: {error.filename or self._spool.directory}")
        self._sender.wake()

    def _put_file(self, key: str, path: Path, folder: str | None) -> None:
        try:
            kept = self._spool.keep(path)
        except OSError as error:
            self._break(f"{error.strerror}: {path}")
            return
        self._put([operations.file(key, kept, folder)])

    def _break(self, why: str) -> None:
        if self._broken is None:
            self._say(f"The tracking of this run is incomplete from here on: {why}. The run continues.")
        self._broken = why

    def _sample(self) -> None:
        """CPU and memory of the driver's machine, as curves of every step that runs."""
        psutil.cpu_percent()  # the first call only starts the measurement
        wait_s = FIRST_SAMPLE_S
        while not self._done.wait(wait_s):
            wait_s = self._config.system_metrics_interval_s
            points = operations.metric_points(system_metrics(), self._samples, time.time())
            self._samples += 1
            running = list(self._open)
            self._put(operations.log(name, points) for name in running)


def system_metrics() -> dict[str, float]:
    """The machine's load under the names that MLflow's system metrics page knows."""
    memory: Any = psutil.virtual_memory()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
    }
