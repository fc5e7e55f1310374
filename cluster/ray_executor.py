"""The executor on Ray: an actor for each piece of work, and a long poll to each actor for its messages."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.base import Deliver, Message, Node, Outcome, Work
from cluster.config import LocalCluster, RemoteCluster
from cluster.connection import Connection
from cluster.gang import remove_groups
from cluster.loss_cause import describe_loss
from cluster.patience import ASK_AGAIN_S, SILENT
from cluster.placement import describe, describe_nodes, fits, options
from cluster.ray_nodes import is_alive
from cluster.step_process import StepProcess
from stages.base import Application, Demand, ExampleRequest

HEAD_LOST = "The head of the Ray cluster was lost, so nothing can be started there. Run the same command again."
DEATH_TIMEOUT_S = 5.0
NODE_DEATH_S = 20.0  # a node that takes a process with it is declared dead after this long, by Ray's health checks
POLL_S = 20.0  # a call that waits for messages returns after this long without any, and is repeated


@dataclass
class _Running:
    """A piece of work, and the calls to its process that are in flight."""

    step: str
    work: Work
    demand: Demand
    process: Any
    ready: ray.ObjectRef[Any] | None  # None once the process has started
    run: ray.ObjectRef[Any] | None  # None once it has returned: the outcome arrives with the messages
    take: ray.ObjectRef[Any]
    placement_deadline: float  # monotonic seconds
    group_name: str  # prefix of the names of its gangs' placement groups
    batch: int = 1  # the number of the batch of messages that `take` asks for
    node: str | None = None  # the id of the process's node, once it has started
    stopping: bool = False
    silent: bool = False  # it was unavailable, and has not answered since
    lost: str = ""  # why the process is gone, while it is not known whether its node is gone too
    lost_deadline: float = 0.0  # until when that may become known (monotonic seconds)

    @property
    def calls(self) -> list[ray.ObjectRef[Any]]:
        if self.lost:
            return []
        return [call for call in (self.ready, self.run, self.take) if call is not None]


class RayExecutor:
    """Runs work on a Ray cluster that it starts or joins."""

    concurrent = True

    def __init__(self, config: LocalCluster | RemoteCluster, packages: Sequence[Path] = ()) -> None:
        self._connection = Connection(config, packages)
        self._placement_timeout_s = config.placement_timeout_s
        self._serve_port = config.serve_port
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
        process = StepProcess.options(**options(demand.task), scheduling_strategy=_near()).remote(  # type: ignore[attr-defined]
            demand.task, group_name, self._connection.can_grow, self._placement_timeout_s, self._serve_port
        )
        try:
            run = process.run.remote(step, work)
        except (TypeError, ValueError) as error:  # the work can't be pickled
            ray.kill(process)
            self._events.append(Outcome(step, "failed", error=f"The work can't be sent to another process: {error}"))
            return
        deadline = time.monotonic() + self._placement_timeout_s
        ready, take = process.ready.remote(), process.take.remote(POLL_S, 1)
        self._running[step] = _Running(step, work, demand, process, ready, run, take, deadline, group_name)

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
            running.stopping = True
            running.process.stop.remote()

    def kill(self, step: str) -> None:
        running = self._running.pop(step, None)
        if running:
            self._end_process(running, early=True)
            self._events.append(Outcome(step, "stopped"))

    def serve_foreground(self, application: Application, example: ExampleRequest | None = None) -> int:
        from cluster import serve, serve_foreground

        self._connection.wait()
        return serve_foreground.serve(partial(serve.start, port=self._serve_port), application, example)

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
        for running in [running for running in self._running.values() if running.lost]:
            self._end_lost(running)
        if self._events:
            return None
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
        except ActorUnavailableError:
            return self._ask_again(running, call)
        except RayActorError as error:
            self._lost = True
            logs = f" Its log is in {self._connection.logs}." if self._connection.logs else ""
            running.lost = f"The process of step {running.step} was lost: {describe_loss(error)}.{logs}"
            if self._connection.can_grow:
                running.lost_deadline = time.monotonic() + NODE_DEATH_S
            return self._end_lost(running)
        except RayError as error:  # the work or its result could not be unpickled
            short = f"The work or its result could not be passed between processes: {_last_line(str(error))}"
            return self._end(running, Outcome(running.step, "failed", error=short, trace=str(error)))
        running.silent = False
        if call == running.ready:
            running.ready, running.node = None, value
        elif call == running.run:
            running.run = None
        else:
            self._take(running, value)
        return None

    def _end_lost(self, running: _Running) -> None:
        """End work whose process is gone, once its node is declared dead, or has had the time to be."""
        node_lost = bool(running.node) and self._connection.head_answers() and not is_alive(str(running.node))
        if node_lost or time.monotonic() >= running.lost_deadline:
            error = f"The process of step {running.step} was lost with its node." if node_lost else running.lost
            self._end(running, Outcome(running.step, "lost", error=error, node_lost=node_lost))

    def _ask_again(self, running: _Running, call: ray.ObjectRef[Any]) -> None:
        """Repeat a call that was interrupted. The process is not lost before the cluster says so."""
        if not running.silent:
            text = f"its process {SILENT}"
            self._events.append(Message(running.step, "note", {"text": text}))
        running.silent = True
        time.sleep(ASK_AGAIN_S)
        if running.stopping:
            running.process.stop.remote()
        if call == running.ready:
            running.ready = running.process.ready.remote()
        elif call == running.run:
            running.run = running.process.run.remote(running.step, running.work)
        else:
            running.take = running.process.take.remote(POLL_S, running.batch)

    def _take(self, running: _Running, arrived: list[Message | Outcome]) -> None:
        arrived = [replace(event, step=running.step) for event in arrived]
        if arrived and isinstance(arrived[-1], Outcome):
            self._events.extend(arrived[:-1])
            self._end(running, arrived[-1])
        else:
            self._events.extend(arrived)
            running.batch += 1
            running.take = running.process.take.remote(POLL_S, running.batch)

    def _end(self, running: _Running, outcome: Outcome) -> None:
        del self._running[running.step]
        self._end_process(running, early=outcome.state == "lost")
        self._events.append(outcome)

    def _end_process(self, running: _Running, early: bool = False) -> None:
        """End a process, and what would outlive it. `early`: it may not have ended what it serves."""
        ray.kill(running.process)  # its ranks end with it, because it owns them
        if running.ready is None:  # it has started
            ray.wait([running.take], timeout=DEATH_TIMEOUT_S)
        if running.demand.ranks and self._connection.head_answers():
            remove_groups(running.group_name)
            if early and running.ready is None:
                from cluster import serve_session

                serve_session.end_all_of(running.group_name[-8:])

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


def _near() -> NodeAffinitySchedulingStrategy:
    """On this process's node if it has the resources now, because no network can then come between the two."""
    here = ray.get_runtime_context().get_node_id()
    return NodeAffinitySchedulingStrategy(here, soft=True, _spill_on_unavailable=True)


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else "unknown error"
