"""How a run shows itself to the world: to the terminal, the tracking and the history of the store."""

from __future__ import annotations

from typing import Protocol

from cluster.base import Message
from pipelines.store import Record
from pipelines.summary import RunSummary, StepSummary


class Observer(Protocol):
    """Receives the events of a run in the runner's thread. Its methods must be quick and must not raise."""

    def run_started(self, run: RunSummary) -> None: ...

    def step_started(self, step: StepSummary) -> str | None:
        """May return the id under which it tracks the step: it goes into the record."""

    def step_message(self, message: Message) -> None: ...

    def step_finished(self, step: StepSummary, record: Record | None) -> None:
        """The step is done, cached, failed, skipped or stopped. `record`: of its artifact, if it has one."""

    def run_finished(self, run: RunSummary) -> None: ...
