"""The runs that a store remembers: what ran, with which values, and what came out.

    runs/RUN/run.json             written when the run begins, every few seconds, and when it ends
             curves/STEP.json     the metrics of a step over its time so far, thinned out
             report.html          the report of a run that has ended

A thread of the driver writes the first two, so that a store that is slow does not slow the run. They are for people and
notebooks: no plan and no fingerprint depends on them.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from cluster.base import Message
from pipelines.curves import Curve, GrowingCurve, continued
from pipelines.errors import BloomlineError
from pipelines.process_identity import is_gone, this_process
from pipelines.run_record import RunRecord, StepResult
from pipelines.store import Record, Store
from pipelines.store.json_values import plain
from pipelines.summary import RunSummary, StepSummary

SAVE_INTERVAL_S = 5.0  # the least between two savings of a run in progress
SAVED_BYTES_PER_S = 1 << 17  # what a run with many steps or metrics may write: it is saved less often
LONGEST_PAUSE_S = 30.0  # the longest between two savings
HEARTBEAT_S = 10.0  # a run is saved as often as this, also if nothing has changed
LOST_S = 180.0  # a driver on another machine without a heartbeat for this time is considered gone
MOST_BEFORE = 100  # records that are read to find the runs before another


_CURVES: TypeAdapter[dict[str, Curve]] = TypeAdapter(dict[str, Curve], config=ConfigDict(ser_json_inf_nan="constants"))


class History:
    """Writes the record of a run: an observer of the runner. A store that can't be written to must not end the run."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._run: RunSummary | None = None
        self._steps: dict[str, StepSummary] = {}
        self._began: dict[str, float] = {}  # running steps: seconds since the epoch
        self._progress: dict[str, tuple[float, float, str]] = {}
        self._curves: dict[str, dict[str, GrowingCurve]] = {}
        self._unsaved: set[str] = set()  # steps whose curves have grown since they were saved
        self._lock = threading.Lock()  # of what is above, which the runner's thread changes and ours reads
        self._earlier: dict[str, dict[str, Curve]] = {}  # by step: the curves of the run that it continues
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="history", daemon=True)

    def run_started(self, run: RunSummary) -> None:
        self._run = run
        self._steps = {step.name: step for step in run.steps}
        self._save()
        self._thread.start()

    def step_started(self, step: StepSummary) -> str | None:
        with self._lock:
            self._steps[step.name] = step
            self._began[step.name] = time.time()
        self._wake.set()
        return None

    def step_message(self, message: Message) -> None:
        if message.kind not in ("started", "metrics", "progress"):
            return
        body = message.body
        with self._lock:
            if message.kind == "started":  # the time of a step is that of its work, without the start of its process
                self._began[message.step] = time.time()
                return
            if message.kind == "progress":
                self._progress[message.step] = body["done"], body["total"], body.get("unit", "")
                return
            for name, value in body["values"].items():
                if isinstance(value, int | float):
                    curves = self._curves.setdefault(message.step, {})
                    curves.setdefault(name, GrowingCurve()).add(body.get("at"), float(value))
                    self._unsaved.add(message.step)
        self._wake.set()

    def step_finished(self, step: StepSummary, record: Record | None) -> None:
        with self._lock:
            self._steps[step.name] = step
            self._began.pop(step.name, None)
            self._progress.pop(step.name, None)
        self._wake.set()

    def run_finished(self, run: RunSummary) -> None:
        with self._lock:
            self._run, self._steps = run, {step.name: step for step in run.steps}
        self.close()

    def close(self) -> None:
        """Save the rest, and end the thread. Can be called again, and without `run_started`.

        A run that has not finished is remembered as failed: something else than its steps broke.
        """
        with self._lock:
            if self._run is not None and self._run.state == "running":
                self._run = replace(self._run, state="failed")
                broken = {name: step for name, step in self._steps.items() if step.state == "running"}
                self._steps |= {name: replace(step, state="stopped") for name, step in broken.items()}
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()  # the store bounds the time

    def _keep(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(HEARTBEAT_S)
            self._wake.clear()
            pause = max(SAVE_INTERVAL_S, min(self._save() / SAVED_BYTES_PER_S, LONGEST_PAUSE_S))
            self._closing.wait(pause)
        self._save()

    def _save(self) -> int:
        """Save the record and the curves that have grown. Returns how many bytes that were."""
        run = self._run
        assert run is not None
        with self._lock:
            grown = {
                step: {name: curve.points() for name, curve in self._curves[step].items()} for step in self._unsaved
            }
            ended = {step for step in grown if self._steps[step].state not in ("waiting", "running")}
            self._unsaved.clear()
            driver = this_process() if run.state == "running" else {}
            record = record_of(run, self._steps_now(), driver, self._progress)
        written = 0
        for step, found in grown.items():
            curves = {name: points for name, points in self._whole(run, step, found).items() if len(points) > 1}
            content = _CURVES.dump_json(curves) if curves else b""
            kept = not curves or self._write(_curves_path(run.run_id, step), content)
            written += len(content)
            with self._lock:
                if not kept:
                    self._unsaved.add(step)
                elif step in ended:
                    self._curves.pop(step, None)
        content = record.model_dump_json().encode()
        self._write(_record_path(run.run_id), content)
        return written + len(content)

    def _whole(self, run: RunSummary, step: str, found: Mapping[str, Curve]) -> dict[str, Curve]:
        """The curves of a step. If they begin later than it does, those of the run that it continues come first."""
        if step not in self._earlier:
            if max(points[0][0] for points in found.values()) <= 1:
                return dict(found)
            try:
                self._earlier[step] = _attempted(self._store, run.run_id, step, self._steps[step].fingerprint)
            except OSError:  # looked for again at the next saving
                return dict(found)
        return continued(self._earlier[step], found)

    def _steps_now(self) -> dict[str, StepSummary]:
        """The steps, those that run with the time that they have taken so far."""
        now = time.time()
        began = self._began
        return {
            name: replace(step, seconds=now - began[name]) if name in began else step
            for name, step in self._steps.items()
        }

    def _write(self, path: str, content: bytes) -> bool:
        with contextlib.suppress(OSError):
            self._store.files.write(path, content)
            return True
        return False


def runs(store: Store) -> list[RunRecord]:
    """Every run that the store remembers, the latest first. Records that can't be read are left out."""
    return records(store)[0]


def records(store: Store) -> tuple[list[RunRecord], list[str]]:
    """Every run that the store remembers, the latest first, and the addresses of the records that can't be read."""
    found: list[RunRecord] = []
    damaged: list[str] = []
    for name in store.files.names("runs"):
        path = _record_path(name)
        content = store.files.read(path)
        if content is not None and (run := _parsed(content)):
            found.append(run)
        elif content is not None:
            damaged.append(store.files.uri(path))
    return sorted(found, key=lambda run: -run.started), damaged


def read(store: Store, run_id: str) -> RunRecord | None:
    """The record of a run; None if there is none that can be read."""
    content = store.files.read(_record_path(run_id))
    return None if content is None else _parsed(content)


def _parsed(content: bytes) -> RunRecord | None:
    try:
        run = RunRecord.model_validate_json(content)
    except ValidationError:
        return None
    return run.model_copy(update={"state": "killed"}) if run.state == "running" and _is_lost(run) else run


def _is_lost(run: RunRecord) -> bool:
    """Whether the driver of a running run has ended without saying so, as far as that can be known here."""
    return is_gone(run.driver) or (run.heartbeat is not None and time.time() - run.heartbeat > LOST_S)


def before(store: Store, run: RunSummary) -> RunRecord | None:
    """The latest finished run of the same pipeline that began before `run` and is not a job of the same sweep.

    None if there is none among the hundred runs before it, or if the store can't be read.
    """
    try:
        for found in _earlier(store, run.run_id):
            if found.pipeline != run.pipeline or found.state != "done":
                continue
            if run.sweep is None or found.sweep != run.sweep:
                return found
    except OSError:
        return None
    return None


def _attempted(store: Store, run_id: str, step: str, fingerprint: str) -> dict[str, Curve]:
    """The curves of the latest run before `run_id` that began the same step and did not finish it; {} if none did.

    They have those of the run which that one continued.
    """
    for run in _earlier(store, run_id):
        for one in run.steps:
            unfinished = one.state in ("running", "failed", "stopped")
            if (
                one.name == step
                and one.fingerprint == fingerprint
                and unfinished
                and (found := curves(store, run, step))
            ):
                return found
    return {}


def _earlier(store: Store, run_id: str) -> Iterator[RunRecord]:
    """The runs before another, the latest first, as many as `MOST_BEFORE`."""
    names = sorted((name for name in store.files.names("runs") if name < run_id), reverse=True)
    for name in names[:MOST_BEFORE]:
        if found := read(store, name):
            yield found


def find(store: Store, name: str) -> RunRecord:
    """The run with an id, or the only one whose id begins or ends with a text; `latest`: the latest one.

    Raises BloomlineError.
    """
    known, damaged = records(store)
    if name == "latest" and known:
        return known[0]
    found = [run for run in known if run.run_id == name] or [
        run for run in known if run.run_id.startswith(name) or run.run_id.endswith(name)
    ]
    if len(found) == 1:
        return found[0]
    where = f"in {store.uri_of_root}"
    if found:
        ids = ", ".join(run.run_id for run in found[:5])
        raise BloomlineError(f"{len(found)} runs {where} have an id with {name!r}: {ids}. Write more of it.")
    if unreadable := [path for path in damaged if name in path]:
        raise BloomlineError(damage(unreadable))
    sweeps = {run.sweep for run in known if run.sweep and (run.sweep.startswith(name) or run.sweep.endswith(name))}
    if len(sweeps) == 1:
        (sweep,) = sweeps
        raise BloomlineError(f"{name} is a sweep, not a run. `bloomline runs list sweep={sweep}` lists its runs.")
    raise BloomlineError(f"There is no run {name!r} {where}. `bloomline runs` lists them.")


def damage(paths: Sequence[str]) -> str:
    """What it means that records of runs can't be read, and what to do."""
    return (
        f"{', '.join(paths)} can't be read: what was remembered of the run is lost. Its artifacts are not: the same "
        "command finds them. Remove the file to forget the run."
    )


def delete(store: Store, run: RunRecord) -> None:
    """Remove the record of a run, its curves, report and figures. Its artifacts stay."""
    store.files.remove(f"runs/{run.run_id}")
    shutil.rmtree(store.config.state / "runs" / run.run_id, ignore_errors=True)


def report_path(run_id: str) -> str:
    """Where the report of a run is in the store."""
    return f"runs/{run_id}/report.html"


def curves(store: Store, run: RunRecord, step: str) -> dict[str, Curve]:
    """The metrics of a step over its time, by name, with what earlier runs did of it before this one continued.

    Of a cached step: those of the run that made its artifact.
    """
    made_by = run.step(step).cached_from or run.run_id
    content = store.files.read(_curves_path(made_by, step))
    try:
        return _CURVES.validate_json(content) if content else {}
    except ValidationError:
        return {}


def _record_path(run_id: str) -> str:
    return f"runs/{run_id}/run.json"


def _curves_path(run_id: str, step: str) -> str:
    return f"runs/{run_id}/curves/{step}.json"


def record_of(
    run: RunSummary,
    steps: Mapping[str, StepSummary],
    driver: Mapping[str, Any],
    progress: Mapping[str, tuple[float, float, str]] | None = None,
) -> RunRecord:
    """What the store remembers of a run whose steps are `steps`. `driver`: the process that runs it, if it does.

    `progress`: how far each running step is.
    """
    return RunRecord(
        run_id=run.run_id,
        name=run.name,
        pipeline=run.pipeline,
        state=run.state,
        started=run.started,
        seconds=time.time() - run.started if run.state == "running" else run.seconds,
        command=run.command,
        parameters=dict(run.parameters),
        user=run.user,
        sweep=run.sweep,
        git_commit=run.git_commit,
        git_dirty=run.git_dirty,
        versions=dict(run.versions),
        steps=tuple(
            StepResult(
                **{name: plain(getattr(step, name)) for name in StepResult.model_fields if name != "progress"},
                progress=(progress or {}).get(step.name),
            )
            for step in steps.values()
        ),
        driver=driver,
        heartbeat=time.time() if driver else None,
    )
