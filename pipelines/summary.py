"""One run of a pipeline as plain values: what the terminal, MLflow and the report show of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from pipelines.provenance import Provenance
from stages.predictor import Predictor

State = Literal["waiting", "running", "done", "cached", "failed", "skipped", "stopped", "unselected"]


@dataclass(frozen=True)
class Attempt:
    """One start of a step in this run. `began`, `ended`: seconds since the epoch."""

    began: float
    ended: float
    state: Literal["done", "failed", "stopped", "lost"]  # lost: its process or node died

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(frozen=True)
class StepSummary:
    """One step of a run and its state so far."""

    name: str
    stage: str
    state: State
    reason: str  # why it ran, or which run it is cached from, or why it was skipped
    inputs: tuple[str, ...]  # names of the steps that feed it
    fingerprint: str
    config: Mapping[str, object]  # the stage's fields, JSON values
    seconds: float | None = None
    attempts: tuple[Attempt, ...] = ()  # in this run, in their order
    headline: tuple[str, float] | None = None  # the metric shown in tables
    metrics: Mapping[str, float] = field(default_factory=dict)  # last value of each
    highlights: Mapping[str, str] = field(default_factory=dict)
    artifact: str | None = None  # URI
    artifact_type: str | None = None  # name of the artifact's class
    artifact_role: Literal["model", "dataset"] | None = None  # from the class: is_model, is_dataset
    artifact_class: str | None = None  # "module:Class"
    predictor: Predictor | None = None  # from the class, if it is a Servable
    facts: Mapping[str, object] = field(default_factory=dict)  # Artifact.describe(), JSON values
    size_bytes: int | None = None
    cached_from: str | None = None  # id of the run that made the artifact, if this run did not
    figures: Mapping[str, Path] = field(default_factory=dict)  # name -> PNG
    pages: Mapping[str, Path] = field(default_factory=dict)  # name -> HTML or Markdown, by the name's ending
    error: str | None = None
    frames: str = ""  # of a failed step's traceback, those that matter
    traceback: Path | None = None  # the file with all of it


@dataclass(frozen=True)
class RunSummary:
    """One run of a pipeline."""

    run_id: str
    pipeline: str
    command: str  # the command line that repeats it
    started: float  # seconds since the epoch
    seconds: float
    state: Literal["running", "done", "failed", "stopped"]
    steps: tuple[StepSummary, ...]  # in an order in which they can run
    config_yaml: str
    git_commit: str | None
    git_dirty: bool
    versions: Mapping[str, str]  # of Python and the main libraries
    name: str = ""  # what tells the run from others of its pipeline
    user: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)  # overrides, and what differs from the pipeline's files
    sweep: str | None = None  # the id of the sweep that the run is a job of
    places: tuple[str, ...] = ()  # the overrides that say where the store is
    tracking_url: str | None = None  # the run's page in an MLflow server, or the server's; None: a local database
    silent: tuple[str, ...] = ()  # the failed steps that printed nothing
    notes: tuple[str, ...] = ()  # of the engine, for example about metrics that could not be sent

    @classmethod
    def of(
        cls,
        made_by: Provenance,
        pipeline: str,
        steps: Iterable[StepSummary],
        config_yaml: str,
        state: Literal["running", "done", "failed", "stopped"],
        began: float,
    ) -> Self:
        """The summary, at this moment, of a run that `began` (seconds since the epoch)."""
        return cls(
            run_id=made_by.run_id,
            pipeline=pipeline,
            command=made_by.command,
            started=began,
            seconds=time.time() - began,
            state=state,
            steps=tuple(steps),
            config_yaml=config_yaml,
            git_commit=made_by.git_commit,
            git_dirty=made_by.git_dirty,
            versions=made_by.versions,
            name=made_by.variant.name,
            user=made_by.user,
            parameters=made_by.variant.parameters,
            sweep=made_by.sweep,
            places=made_by.places,
        )
