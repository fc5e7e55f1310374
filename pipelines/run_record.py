"""What a store remembers of one run and of its steps, as values that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pipelines.errors import BloomlineError, nearest


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
    progress: tuple[float, float, str] | None = None  # of a running step: done, of how much, the unit


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
    heartbeat: float | None = None  # when that process last wrote this, by its clock; seconds since the epoch

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
