"""The executor on Ray: an actor for each piece of work, and a long poll to each actor for its messages."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayActorError, RayError

from cluster.base import Deliver, Message, Node, Outcome, Work
from cluster.config import LocalCluster, RemoteCluster
from cluster.connection import Connection
from cluster.gang import remove_groups
from cluster.loss_cause import describe_loss
from cluster.placement import describe, describe_nodes, fits, options
from cluster.step_process import StepProcess
from stages.base import Application, Demand, ExampleRequest

HEAD_LOST = "The head of the Ray cluster was lost, so nothing can be started there. Run the same command again."
DEATH_TIMEOUT_S = 5.0
POLL_S = 20.0  # a call that waits for messages returns after this long without any, and is repeated


@dataclass
class _Running:
    """A piece of work, and the calls to its process that are in flight."""

    step: str
    demand: Demand
    process: Any
    ready: ray.ObjectRef[Any] | None  # None once the process has started
    run: ray.ObjectRef[Any] | None  # None once it has returned: the outcome arrives with the messages
    take: ray.ObjectRef[Any]
    placement_deadline: float  # monotonic seconds
    group_name: str  # prefix of the names of its gangs' placement groups

    @property
    def calls(self) -> list[ray.ObjectRef[Any]]:
        return [call for call in (self.ready, self.run, self.take) if call is not None]


class RayExecutor:
    """Runs work on a Ray cluster that it starts or joins."""

    concurrent = True

    def __init__(self, config: LocalCluster | RemoteCluster, packages: Sequence[Path] = ()) -> None:
        self._connection = Connection(config, packages)
        self._placement_timeout_s = config.placement_timeout_s
        self._running: dict[str, _Running] = {}
        self._events: list[Message | Outcome] = []
        self._lost = False
        self._head_lost = False

    @property
    def nodes(self) -> list[Node]:
        return self._connection.nodes

    def start(self, step: str, work: Work, demand: Demand, deliver: Deliver | None = None) -> None:
        if refusal := self._refusal(step, demand):
            self._events.append(refusal)
            return
        group_name = f"bloomline.{uuid.uuid4().hex}"
        process = StepProcess.options(**options(demand.task)).remote(  # type: ignore[attr-defined]
            demand.task, group_name, self._connection.can_grow, self._placement_timeout_s
        )
        try:
            run = process.run.remote(step, work)
        except (TypeError, ValueError) as error:  # the work can't be pickled
            ray.kill(process)
            self._events.append(Outcome(step, "failed", error=f"The work can't be sent to another process: {error}"))
            return
        deadline = time.monotonic() + self._placement_timeout_s
        ready, take = process.ready.remote(), process.take.remote(POLL_S)
        self._running[step] = _Running(step, demand, process, ready, run, take, deadline, group_name)

    def wait(self, timeout_s: float) -> list[Message | Outcome]:
        if not self._events:
            self._listen(timeout_s)
        arrived, self._events = self._events, []
        return arrived

    def stop(self, step: str) -> None:
        running = self._running.get(step)
        if running and running.ready is not None:
            self.kill(step)  # it has not started, so there is nothing to save
        elif running:
            running.process.stop.remote()

    def kill(self, step: str) -> None:
        running = self._running.pop(step, None)
        if running:
            self._end_process(running)
            self._events.append(Outcome(step, "stopped"))

    def serve_foreground(self, application: Application, example: ExampleRequest | None = None) -> int:
        from cluster import serve, serve_foreground

        self._connection.wait()
        return serve_foreground.serve(serve.start, application, example)

    def close(self) -> None:
        for step in list(self._running):
            self.kill(step)
        self._connection.close(keep_logs=self._lost)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refusal(self, step: str, demand: Demand) -> Outcome | None:
        """The outcome of work that can't be started, None for other work. Waits until the cluster is running."""
        if not self._head_lost:
            if not self._connection.can_grow and not fits(demand.task, 1, self.nodes):
                return self._unplaceable(step, demand)
            self._connection.wait()
            if not self._connection.head_answers() and self._connection.head_is_lost():
                self._lose_head()
        return Outcome(step, "lost", error=HEAD_LOST) if self._head_lost else None

    def _listen(self, timeout_s: float) -> None:
        """Wait for a call to return, and process all calls that have returned."""
        calls = {call: running for running in self._running.values() for call in running.calls}
        if not calls:
            time.sleep(timeout_s)
            return None
        if self._connection.head_is_lost():
            return self._lose_head()
        ray.wait(list(calls), timeout=timeout_s)
        returned, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        for call in returned:
            if calls[call].step in self._running:
                self._receive(calls[call], call)
        for running in list(self._running.values()):
            self._fail_if_unplaceable(running)
        return None

    def _lose_head(self) -> None:
        self._head_lost = self._lost = True
        self._connection.abandon()
        self._events += [Outcome(step, "lost", error=HEAD_LOST) for step in self._running]
        self._running.clear()

    def _receive(self, running: _Running, call: ray.ObjectRef[Any]) -> None:
        try:
            value = ray.get(call)
        except RayActorError as error:
            self._lost = True
            logs = f" Its log is in {self._connection.logs}." if self._connection.logs else ""
            lost = f"The process of step {running.step} was lost: {describe_loss(error)}.{logs}"
            return self._end(running, Outcome(running.step, "lost", error=lost))
        except RayError as error:  # the work or its result could not be unpickled
            short = f"The work or its result could not be passed between processes: {_last_line(str(error))}"
            return self._end(running, Outcome(running.step, "failed", error=short, trace=str(error)))
        if call == running.ready:
            running.ready = None
        elif call == running.run:
            running.run = None
        else:
            self._take(running, value)
        return None

    def _take(self, running: _Running, arrived: list[Message | Outcome]) -> None:
        if arrived and isinstance(arrived[-1], Outcome):
            self._events.extend(arrived[:-1])
            self._end(running, arrived[-1])
        else:
            self._events.extend(arrived)
            running.take = running.process.take.remote(POLL_S)

    def _end(self, running: _Running, outcome: Outcome) -> None:
        del self._running[running.step]
        self._end_process(running)
        self._events.append(outcome)

    def _end_process(self, running: _Running) -> None:
        ray.kill(running.process)  # its ranks end with it, because it owns them
        ray.wait([running.take], timeout=DEATH_TIMEOUT_S)
        if running.demand.ranks and self._connection.head_answers():
            remove_groups(running.group_name)

    def _fail_if_unplaceable(self, running: _Running) -> None:
        """End a piece of work that no node can hold: without an error it would wait for ever."""
        if running.ready is None or time.monotonic() < running.placement_deadline:
            return
        if not fits(running.demand.task, 1, self.nodes):
            self._end(running, self._unplaceable(running.step, running.demand))

    def _unplaceable(self, step: str, demand: Demand) -> Outcome:
        error = (
            f"Step {step} needs {describe(demand.task)} for its process, which no node has: "
            f"the cluster has {describe_nodes(self.nodes)}. Ask for less, or use a larger cluster."
        )
        return Outcome(step, "failed", error=error)


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else "unknown error"
