"""The state of one step of a run, and what is made from it: a summary for people and a record for the store."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines.execute import Made
from pipelines.fingerprint import shown_payload
from pipelines.plan import StepPlan
from pipelines.provenance import Provenance
from pipelines.stage_values import shown_stage_values
from pipelines.store import Record, Store
from pipelines.store.json_values import plain
from pipelines.store.record import InputEntry
from pipelines.summary import Attempt, State, StepSummary
from stages.base import Artifact, Servable


@dataclass
class StepState:
    """One step of a run in progress. Only the runner changes it."""

    plan: StepPlan
    state: State = "waiting"
    reason: str = ""
    record: Record | None = None
    started: float = 0.0  # seconds since the epoch
    attempts: int = 0
    ended_attempts: list[Attempt] = field(default_factory=list)
    node_losses: int = 0  # how many of the attempts ended with the loss of their node
    not_before: float = 0.0  # monotonic seconds: the next time to try
    waits_for: str = ""  # the holder of its lease, once that was reported
    metrics: dict[str, float] = field(default_factory=dict)
    highlights: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Path] = field(default_factory=dict)
    pages: dict[str, Path] = field(default_factory=dict)
    error: str | None = None
    frames: str = ""
    traceback: Path | None = None
    tracking_run_id: str | None = None

    @property
    def finished(self) -> bool:
        return self.state not in ("waiting", "running")

    @property
    def became(self) -> str:
        """The end of a step in the message of a step that needed it."""
        known = {"failed": "failed", "skipped": "was skipped", "stopped": "was stopped"}
        return known.get(self.state, "has no artifact")

    @property
    def seconds(self) -> float | None:
        """What its artifact took, or else its latest attempt so far; None if it was never started."""
        if self.record:
            return self.record.seconds
        if self.state == "running":
            return time.time() - self.started
        return self.ended_attempts[-1].seconds if self.ended_attempts else None

    def summary(self, store: Store) -> StepSummary:
        step, record = self.plan.step, self.record
        headline = step.stage.headline
        return StepSummary(
            name=step.name,
            stage=step.stage_name,
            state=self.state,
            reason=self.reason,
            inputs=step.inputs,
            fingerprint=self.plan.fingerprint,
            config=shown_stage_values(step),
            seconds=self.seconds,
            attempts=tuple(self.ended_attempts),
            headline=(headline, self.metrics[headline]) if headline and headline in self.metrics else None,
            metrics=dict(self.metrics),
            highlights=dict(self.highlights),
            artifact=store.uri(record) if record else None,
            artifact_type=step.produces.__name__,
            artifact_role=_role(step.produces),
            artifact_class=f"{step.produces.__module__}:{step.produces.__qualname__}",
            predictor=step.produces.predictor if issubclass(step.produces, Servable) else None,
            facts=dict(record.describe) if record else {},
            size_bytes=record.size_bytes if record else None,
            cached_from=record.run_id if record and self.state == "cached" else None,
            figures=dict(self.figures),
            pages=dict(self.pages),
            error=self.error if self.state == "failed" else None,
            frames=self.frames if self.state == "failed" else "",
            traceback=self.traceback if self.state == "failed" else None,
        )

    def end_attempt(self, state: Literal["done", "failed", "stopped", "lost"]) -> None:
        """The latest attempt has ended now."""
        self.ended_attempts.append(Attempt(self.started, time.time(), state))

    def to_record(
        self, pipeline: str, made: Made, inputs: Mapping[str, Record | None], provenance: Provenance
    ) -> Record:
        step = self.plan.step
        return Record(
            fingerprint=self.plan.fingerprint,
            payload=plain(shown_payload(self.plan.payload, step)),
            pipeline=pipeline,
            step=step.name,
            stage=step.stage_name,
            artifact=step.produces.__name__,
            location=made.location,
            files=made.files,
            config=shown_stage_values(step),
            inputs={
                source: InputEntry(fingerprint=record.fingerprint, content=record.content)
                for source, record in inputs.items()
                if record
            },
            metrics=self.metrics,
            headline=step.stage.headline,
            highlights=self.highlights,
            describe=made.describe,
            created=time.time(),
            seconds=made.seconds,
            run_id=provenance.run_id,
            tracking_run_id=self.tracking_run_id,
            git_commit=provenance.git_commit,
            git_dirty=provenance.git_dirty,
            versions=provenance.versions,
        )


def _role(artifact: type[Artifact]) -> Literal["model", "dataset"] | None:
    return "model" if artifact.is_model else "dataset" if artifact.is_dataset else None


def cached(plan: StepPlan, store: Store) -> StepSummary:
    """The summary of a step that is cached."""
    record = plan.record
    known = StepState(plan, "cached", plan.explanation, record)
    if record:
        known.metrics, known.highlights = dict(record.metrics), dict(record.highlights)
    return known.summary(store)
