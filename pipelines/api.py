"""The Python API for notebooks: `bloomline.load`, `runs`, `compose` and `run`.

Its functions do what the commands of the same names do, and return values instead of printing them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines import config, outline, project, run_history, step_state, verbs
from pipelines.config import Composition
from pipelines.curves import Curve
from pipelines.errors import BloomlineError, ConfigError
from pipelines.graph import produces
from pipelines.run_record import RunRecord, StepResult
from pipelines.session import Session
from pipelines.store import Record, Store
from stages import registry
from stages.base import Artifact

__all__ = ["BloomlineError", "ConfigError", "Run", "RunFailedError", "compose", "load", "run", "runs"]


class RunFailedError(BloomlineError):
    """A run ended without all of its artifacts. `run`: what the store remembers of it; None if nothing was started."""

    def __init__(self, message: str, run: Run | None = None) -> None:
        super().__init__(message)
        self.run = run


@dataclass(frozen=True)
class Run:
    """One run that the store remembers, or one of which everything was cached."""

    record: RunRecord
    store: Store

    @property
    def id(self) -> str:
        return self.record.run_id

    @property
    def name(self) -> str:
        """The pipeline, and what the command line changed: `books · learning_rate=1e-3`."""
        return self.record.name

    @property
    def state(self) -> str:
        """running, done, failed, stopped, or killed."""
        return self.record.state

    @property
    def sweep(self) -> str | None:
        """The id of the sweep that the run is a job of."""
        return self.record.sweep

    @property
    def parameters(self) -> Mapping[str, str]:
        """Every override, and every value that differs from the pipeline's files, by `step.field`."""
        return self.record.parameters

    @property
    def steps(self) -> Mapping[str, StepResult]:
        """The steps by name, in an order in which they can run."""
        return {step.name: step for step in self.record.steps}

    @property
    def headlines(self) -> Mapping[str, float]:
        """The headline of every step that has one, by `step.metric`."""
        return self.record.headlines()

    def metrics(self, step: str) -> Mapping[str, float]:
        """The last value of every metric of a step. Raises BloomlineError for a step that the run does not have."""
        return self.record.step(step).metrics

    def curves(self, step: str) -> Mapping[str, Curve]:
        """The metrics of a step over its time, by name: pairs of the training step and the value.

        They have the points of the runs that this one continued. Of a long curve about a thousand points are there,
        the first and the last among them.
        """
        return run_history.curves(self.store, self.record, step)

    def load(self, step: str) -> Artifact:
        """The artifact of a step. Raises BloomlineError if it is not in the store, or damaged."""
        fingerprint = self.record.step(step).fingerprint
        record = self.store.record(fingerprint)
        if record is None:
            raise BloomlineError(f"The artifact of step {step} of run {self.id} is not in the store.")
        return _opened(self.store, record)


def compose(overrides: Sequence[str] = ()) -> Composition:
    """The configuration that overrides stand for, checked: `compose(["pipeline=debug", "steps.pretrain.steps=5"])`.

    Raises ConfigError with every problem.
    """
    return config.compose(list(overrides))


def runs(
    pipeline: str | None = None, sweep: str | None = None, limit: int | None = None, overrides: Sequence[str] = ()
) -> list[Run]:
    """The runs that the store remembers, the latest first.

    `pipeline`, `sweep`: only theirs. `limit`: at most this number of them. `overrides`: where the store is, such as
    `store.root=DIR`.
    """
    store = Store(outline.compose(overrides).settings.store)
    found = (
        Run(record, store)
        for record in run_history.runs(store)
        if pipeline in (None, record.pipeline) and sweep in (None, record.sweep)
    )
    return list(found)[:limit]


def load(step: str, pipeline: str | None = None, overrides: Sequence[str] = ()) -> Artifact:
    """The latest artifact of a step of a pipeline, opened. Every digest of its files is checked.

    `pipeline` None: the default pipeline. With overrides that change values, `compose` and `run` them, and take the
    artifact from the run. Raises BloomlineError if there is none, or if it is damaged.
    """
    found = outline.compose([*([f"pipeline={pipeline}"] if pipeline else []), *overrides])
    store, name = Store(found.settings.store), found.settings.name
    if step not in found.steps:
        raise BloomlineError(f"Pipeline {name} has no step {step!r}. It has {', '.join(found.steps)}.")
    record = store.latest(name, step)
    if record is None:
        raise BloomlineError(f"There is no artifact of step {step} of pipeline {name} in {store.uri_of_root}.")
    return _opened(store, record)


def run(overrides: Sequence[str] = ()) -> Run:
    """Run a pipeline as `bloomline run` does, with its output, and return the run.

    If everything is cached, nothing is started, and the run has the cached steps. Raises RunFailedError if a step
    fails, or is blocked so that nothing was started, and ConfigError for a configuration that is not valid.
    """
    words = list(overrides)
    with Session() as session:
        prepared = verbs.prepare(words, None, session)
        if blocked := prepared.plan.blocked:
            raise RunFailedError("\n".join(f"{step.step.name}: blocked: {step.reason}" for step in blocked))
        if not prepared.plan.to_run:
            return _cached(prepared, words)
        run_id, code = verbs.execute(prepared, words, session)
    record = run_history.read(prepared.store, run_id)
    if record is None:
        raise BloomlineError(f"Run {run_id} has left no record in {prepared.store.uri_of_root}.")
    made = Run(record, prepared.store)
    if code:
        errors = [f"{step.name}: {step.error}" for step in record.steps if step.error]
        raise RunFailedError("\n".join([f"Run {run_id} is {record.state}.", *errors]), made)
    return made


def _cached(prepared: verbs.Prepared, overrides: list[str]) -> Run:
    """A run of which everything is cached, described as if it had been recorded."""
    from pipelines import provenance, variant
    from pipelines.summary import RunSummary

    store, plan = prepared.store, prepared.plan
    made_by = provenance.collect("run", overrides, variant.of(prepared.composition, overrides))
    steps = tuple(step_state.cached(step, store) for step in plan.steps.values() if step.state == "cached")
    summary = RunSummary.of(made_by, plan.graph.name, steps, "", "done", time.time())
    return Run(run_history.record_of(summary, {step.name: step for step in steps}, {}), store)


def _opened(store: Store, record: Record) -> Artifact:
    """An artifact as an object of the class that its stage makes."""
    project.find(Path.cwd()).use()
    kind = produces(registry.STAGES.load(record.stage))
    return kind(store.open(record))
