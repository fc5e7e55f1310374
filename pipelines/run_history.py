"""The runs that a store remembers: what ran, with which values, and what came out.

    runs/RUN/run.json             written when the run begins, now and then, and when it ends
             curves/STEP.json     the metrics of a step over its time, thinned out

An observer of the runner writes them in its own thread, so that a slow store does not hold the run up. They are
for people and notebooks: no plan and no fingerprint depends on them.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from cluster.base import Message
from pipelines.errors import BloomlineError, nearest
from pipelines.process_identity import is_gone, this_process
from pipelines.store import Record, Store
from pipelines.store.json_values import plain
from pipelines.summary import RunSummary, StepSummary

LONGEST_CURVE = 1000  # points of a metric; beyond, every second one is left out
SAVE_INTERVAL_S = 5.0  # between two records, at least
BEAT_S = 20.0  # between two records, at most: the sign of life of the driver
SILENT_S = 600.0  # without one, a driver on another machine is taken to be killed; clocks may differ by minutes

Curve = list[tuple[int, float]]  # the step of training, or the number of the point; the value


class StepResult(BaseModel):
    """One step of a run that the store remembers."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    name: str
    stage: str
    state: str
    reason: str
    fingerprint: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...] = ()
    seconds: float | None = None
    headline: tuple[str, float] | None = None
    metrics: Mapping[str, float] = {}
    highlights: Mapping[str, str] = {}
    artifact: str | None = None  # its address
    artifact_type: str | None = None
    size_bytes: int | None = None
    cached_from: str | None = None  # id of the run that made the artifact, if this run did not
    error: str | None = None


class RunRecord(BaseModel):
    """One run that the store remembers."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    run_id: str
    name: str
    pipeline: str
    state: Literal["running", "done", "failed", "stopped", "killed"]
    started: float  # seconds since the epoch
    seconds: float
    command: str
    parameters: Mapping[str, str]
    user: str
    sweep: str | None
    git_commit: str | None
    git_dirty: bool
    versions: Mapping[str, str]
    steps: tuple[StepResult, ...]  # in an order in which they can run
    driver: Mapping[str, Any] = {}  # the process that runs it, while it does
    seen: float = 0.0  # when the driver wrote this (seconds since the epoch, by its clock); 0 in records of before

    def step(self, name: str) -> StepResult:
        """The step of that name. Raises BloomlineError."""
        for step in self.steps:
            if step.name == name:
                return step
        names = [step.name for step in self.steps]
        raise BloomlineError(f"Run {self.run_id} has no step {name!r}. {nearest(name, names)}")

    def headlines(self) -> dict[str, float]:
        """The headline of every step that has one, by `step.metric`."""
        return {f"{step.name}.{step.headline[0]}": step.headline[1] for step in self.steps if step.headline}


_CURVES: TypeAdapter[dict[str, Curve]] = TypeAdapter(dict[str, Curve])


class History:
    """Writes the record of a run: an observer of the runner. A disk that is full must not end the run."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._run: RunSummary | None = None
        self._steps: dict[str, StepSummary] = {}
        self._curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
        self._strides: dict[tuple[str, str], int] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._files: dict[str, bytes] = {}  # of curves, to be written
        self._changed = threading.Event()  # a step has begun or ended since the last record
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="history", daemon=True)

    def run_started(self, run: RunSummary) -> None:
        self._run = run
        self._steps = {step.name: step for step in run.steps}
        self._save(run, this_process())
        self._thread.start()

    def step_started(self, step: StepSummary) -> str | None:
        self._steps = {**self._steps, step.name: step}
        self._changed.set()
        return None

    def step_message(self, message: Message) -> None:
        if message.kind == "metrics":
            for name, value in message.body["values"].items():
                if isinstance(value, int | float):
                    self._add(message.step, name, message.body.get("at"), float(value))

    def step_finished(self, step: StepSummary, record: Record | None) -> None:
        self._steps = {**self._steps, step.name: step}
        curves = {name: points for name, points in self._curves.pop(step.name, {}).items() if len(points) > 1}
        if self._run and curves:
            self._files[_curves_path(self._run.run_id, step.name)] = _CURVES.dump_json(curves)
        self._changed.set()

    def run_finished(self, run: RunSummary) -> None:
        self.close()
        self._steps = {step.name: step for step in run.steps}
        self._save(run, {})

    def close(self) -> None:
        """End the thread. Can be called again, and without `run_started`."""
        self._closing.set()
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join()  # what it writes must not replace the last record

    def _add(self, step: str, name: str, at: int | None, value: float) -> None:
        key = step, name
        count = self._counts[key] = self._counts.get(key, 0) + 1
        if (count - 1) % self._strides.setdefault(key, 1):
            return
        points = self._curves.setdefault(step, {}).setdefault(name, [])
        points.append((count - 1 if at is None else at, value))
        if len(points) > LONGEST_CURVE:
            del points[1::2]
            self._strides[key] *= 2

    def _keep(self) -> None:
        assert self._run is not None
        while not self._closing.wait(SAVE_INTERVAL_S):
            self._changed.wait(BEAT_S)
            if not self._closing.is_set():
                self._save(self._run, this_process())

    def _save(self, run: RunSummary, driver: Mapping[str, Any]) -> None:
        self._changed.clear()
        for path in list(self._files):
            with contextlib.suppress(OSError):
                self._store.files.write(path, self._files.pop(path))
        with contextlib.suppress(OSError):
            content = record_of(run, self._steps, driver).model_dump_json().encode()
            self._store.files.write(f"runs/{run.run_id}/run.json", content)


def runs(store: Store) -> list[RunRecord]:
    """Every run that the store remembers, the latest first. Records that can't be read are left out."""
    found = (read(store, name) for name in store.files.names("runs"))
    return sorted((run for run in found if run), key=lambda run: -run.started)


def read(store: Store, run_id: str) -> RunRecord | None:
    """The record of a run; None if there is none that can be read."""
    content = store.files.read(f"runs/{run_id}/run.json")
    if content is None:
        return None
    try:
        run = RunRecord.model_validate_json(content)
    except ValidationError:
        return None
    silent = run.seen > 0 and time.time() - run.seen > SILENT_S
    killed = run.state == "running" and (silent or is_gone(run.driver))
    return run.model_copy(update={"state": "killed"}) if killed else run


def find(store: Store, name: str) -> RunRecord:
    """The run with an id, or the only one whose id begins or ends with a text; `latest`: the latest one.

    Raises BloomlineError.
    """
    known = runs(store)
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
    raise BloomlineError(f"There is no run {name!r} {where}. `bloomline runs` lists them.")


def delete(store: Store, run: RunRecord) -> None:
    """Remove the record of a run, its curves, report and figures. Its artifacts stay."""
    store.files.remove(f"runs/{run.run_id}")
    shutil.rmtree(store.config.state / "runs" / run.run_id, ignore_errors=True)


def curves(store: Store, run: RunRecord, step: str) -> dict[str, Curve]:
    """The metrics of a step over its time, by name. Of a cached step: those of the run that made its artifact."""
    made_by = run.step(step).cached_from or run.run_id
    content = store.files.read(_curves_path(made_by, step))
    try:
        return _CURVES.validate_json(content) if content else {}
    except ValidationError:
        return {}


def differences(run: RunRecord, other: RunRecord) -> Iterator[tuple[str, Any, Any]]:
    """The values of steps in which two runs differ, by `step.field`. A value that one does not have is None."""
    one, two = _values(run), _values(other)
    for key in dict.fromkeys([*one, *two]):
        if one.get(key) != two.get(key):
            yield key, one.get(key), two.get(key)


def _values(run: RunRecord) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for step in run.steps:
        found[f"{step.name}.stage"] = step.stage
        found |= {f"{step.name}.{key}": value for key, value in leaves(step.config)}
    return found


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings, by dotted key. Lists stay whole."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _curves_path(run_id: str, step: str) -> str:
    return f"runs/{run_id}/curves/{step}.json"


def record_of(run: RunSummary, steps: Mapping[str, StepSummary], driver: Mapping[str, Any]) -> RunRecord:
    """What the store remembers of a run whose steps are `steps`. `driver`: the process that runs it, if it does."""
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
            StepResult(**{name: plain(getattr(step, name)) for name in StepResult.model_fields})
            for step in steps.values()
        ),
        driver=driver,
        seen=time.time(),
    )
