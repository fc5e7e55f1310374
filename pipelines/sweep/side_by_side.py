"""Several runs at the same time on one executor, in one thread.

Each run has its part of the executor, in which its steps have their own names. Earlier runs come first: a later one
gets what they leave, and another is begun only while no step waits for room.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import FrameType, TracebackType
from typing import Protocol, Self

from cluster import stop_signals
from cluster.base import Deliver, Executor, Message, Node, Outcome, Work
from pipelines.runner import POLL_S, Runner
from pipelines.summary import RunSummary
from stages.base import Application, Demand, ExampleRequest


class Job(Protocol):
    """A run that can be begun."""

    def begin(self, executor: Part) -> Runner:
        """Make the run. Raises whatever keeps it from beginning, which ends all of them."""

    def finish(self, summary: RunSummary, exit_code: int) -> None: ...

    def abandon(self) -> None:
        """Close what `begin` opened, if the run did not finish."""


def run(jobs: Iterable[Job], executor: Executor, parallel: int) -> int:
    """Run the jobs, `parallel` of them at the same time at most. Returns the number of the signal that stopped them, or
    0."""
    waiting = deque(jobs)
    limit = parallel if executor.concurrent else 1
    shared = Shared(executor)
    active: list[_Active] = []
    signals: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        waiting.clear()
        for one in active:
            one.runner.stop(number, frame)

    with stop_signals.handled(stop), contextlib.ExitStack() as opened:
        while waiting or active:
            for one in list(active):
                if not one.runner.advance():
                    active.remove(one)
                    one.close()
            while waiting and len(active) < limit and not any(one.runner.waits_for_room for one in active):
                job, part = waiting.popleft(), shared.part()
                opened.callback(job.abandon)
                runner = job.begin(part)
                active.append(_Active(job, part, opened.enter_context(runner)))
                runner.advance()
            if active:
                shared.listen(POLL_S)
            for one in active:
                for event in one.part.wait(0):
                    one.runner.receive(event)
    return signals[0] if signals else 0


@dataclass(frozen=True)
class _Active:
    job: Job
    part: Part
    runner: Runner

    def close(self) -> None:
        self.runner.__exit__(None, None, None)
        self.job.finish(self.runner.end(), self.runner.exit_code)


class Shared:
    """An executor that several runs use."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self._parts: list[Part] = []

    def part(self) -> Part:
        """A part of the executor for one more run."""
        self._parts.append(Part(self, len(self._parts)))
        return self._parts[-1]

    def listen(self, timeout_s: float) -> None:
        """Take what has arrived to the runs that it is for. Waits for the first, at most `timeout_s`."""
        for event in self.executor.wait(timeout_s):
            number, _, step = event.step.partition("/")
            self._parts[int(number)].arrived.append(_renamed(event, event.step, step))

    def demands(self, but: Part) -> Iterator[Demand]:
        """What the running steps of the other runs use."""
        for part in self._parts:
            if part is not but:
                yield from part.running.values()


class Part:
    """An executor for one of several runs."""

    def __init__(self, shared: Shared, number: int) -> None:
        self.arrived: list[Message | Outcome] = []
        self.running: dict[str, Demand] = {}
        self._shared = shared
        self._executor = shared.executor
        self._number = number
        self.concurrent = shared.executor.concurrent

    @property
    def nodes(self) -> list[Node]:
        return self._executor.nodes

    def others(self) -> list[Demand]:
        """What the steps of the other runs use now."""
        return list(self._shared.demands(self))

    def start(self, step: str, work: Work, demand: Demand, deliver: Deliver | None = None) -> None:
        name = f"{self._number}/{step}"
        self.running[step] = demand
        self._executor.start(name, work, demand, _delivering(deliver, step) if deliver else None)

    def wait(self, timeout_s: float) -> list[Message | Outcome]:
        if not self.arrived and timeout_s:
            self._shared.listen(timeout_s)
        arrived, self.arrived = self.arrived, []
        for event in arrived:
            if isinstance(event, Outcome):
                self.running.pop(event.step, None)
        return arrived

    def stop(self, step: str) -> None:
        self._executor.stop(f"{self._number}/{step}")

    def kill(self, step: str) -> None:
        self._executor.kill(f"{self._number}/{step}")

    def serve_foreground(self, application: Application, example: ExampleRequest | None = None) -> int:
        return self._executor.serve_foreground(application, example)

    def close(self) -> None:
        """End what this run still has running. The cluster stays open for the others."""
        for step in list(self.running):
            self.kill(step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _delivering(deliver: Deliver, step: str) -> Callable[[Message], None]:
    return lambda message: deliver(replace(message, step=step))


def _renamed(event: Message | Outcome, name: str, step: str) -> Message | Outcome:
    """An event with the name that its step has in its run."""
    if isinstance(event, Outcome):
        return replace(event, step=step, error=event.error.replace(f"step {name}", f"step {step}"))
    if event.kind == "note":
        body: Mapping[str, object] = {**event.body, "text": str(event.body["text"]).replace(f"step {name}", step)}
        return replace(event, step=step, body=body)
    return replace(event, step=step)
