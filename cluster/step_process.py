"""The process of a step on Ray: an actor that runs the work, queues its messages, and starts its gang.

Each step has its own process, so that what a step imports, sets or leaks ends with it. The driver owns the process, and
the process owns the ranks of its gang: when one of them dies, what it started ends too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from cluster import process_setup
from cluster.base import Gang, Items, Message, Outcome, Send, Work
from cluster.gang import GangSpec, run_gang
from cluster.message_queue import MessageQueue
from cluster.outcome_capture import capture_outcome
from cluster.parallel_map import map_in_parallel
from cluster.printed_output import redirected
from cluster.sequential_map import map_sequentially
from stages.base import Application, Resources, Served


@ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={"take": 1, "deliver": 1, "control": 1})  # type: ignore[call-overload]
class StepProcess:
    """The process of one step. `run` has its own thread; the other methods answer while it runs."""

    def __init__(
        self,
        resources: Resources,
        group_name: str,
        can_grow: bool,
        placement_timeout_s: float,
        serve_port: int | None = None,
    ) -> None:
        process_setup.prepare(resources)
        self._launcher = RayLauncher(group_name, can_grow, placement_timeout_s, serve_port)
        self._messages = MessageQueue()
        self._started = False
        self._delivered: dict[str, int] = {}  # the number of the last batch of each sender

    def run(self, step: str, work: Work) -> None:
        """Run the work, once. Another call returns after the first, see `cluster/patience.py`."""
        if not self._started:
            self._started = True
            self._messages.end(capture_outcome(step, work, self._launcher, self._messages))

    @ray.method(concurrency_group="control")
    def ready(self) -> str:
        """Returns the id of the process's node, once the process has started."""
        return str(ray.get_runtime_context().get_node_id())

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        self._messages.stop()

    @ray.method(concurrency_group="take")
    def take(self, timeout_s: float, number: int) -> list[Message | Outcome]:
        return self._messages.take(timeout_s, number)

    @ray.method(concurrency_group="deliver")
    def deliver(self, sender: str, number: int, messages: list[Message]) -> None:
        """Called by the ranks. A batch with the number of the sender's last one is the same batch."""
        if self._delivered.get(sender) != number:
            self._delivered[sender] = number
            self._messages.put(messages)


class RayLauncher:
    """Starts gangs, tasks and applications from the process of a step."""

    def __init__(self, group_name: str, can_grow: bool, placement_timeout_s: float, serve_port: int | None) -> None:
        self._group_name = group_name
        self._gangs = 0
        self._can_grow = can_grow
        self._placement_timeout_s = placement_timeout_s
        self._serve_port = serve_port
        self._output: Path | None = None

    @contextmanager
    def keep_output(self, directory: Path) -> Iterator[None]:
        self._output = directory
        with redirected(directory / "step"):
            yield

    def gang(self, step: str, gang: Gang, send: Send) -> list[Any]:
        self._gangs += 1
        group_name = f"{self._group_name}.{self._gangs}"
        spec = GangSpec(step, gang, group_name, self._can_grow, self._placement_timeout_s, self._output)
        return run_gang(spec, send)

    def map(self, step: str, items: Items, send: Send) -> Iterator[tuple[int, Any]]:
        if items.workers == 1:
            return map_sequentially(items.function, items.items, send)
        return map_in_parallel(step, items, self._can_grow, send, self._output)

    def serve(self, application: Application) -> Served:
        from cluster import serve

        return serve.start(application, owner=self._group_name[-8:], port=self._serve_port)
