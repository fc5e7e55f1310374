"""The executor without Ray: work runs in this process, in the thread that starts it, where a debugger can reach it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import sleep
from types import TracebackType
from typing import Any, Self

from cluster.base import Deliver, Gang, Items, Message, Node, Outcome, Send, Work
from cluster.config import HttpLimits
from cluster.outcome_capture import capture_outcome
from cluster.printed_output import copied, not_copied
from cluster.reporter import StepReporter
from cluster.sequential_map import map_sequentially
from stages.base import Application, Demand, ExampleRequest, Rank, Served


class InlineExecutor:
    """Runs each piece of work to its end in the call that starts it."""

    concurrent = False

    def __init__(self, node: Node, http: HttpLimits | None = None, serve_port: int | None = None) -> None:
        self.nodes = [node]
        self._launcher = InlineLauncher(http, serve_port)
        self._events: list[Message | Outcome] = []
        self._stopping: set[str] = set()

    def start(self, step: str, work: Work, demand: Demand, deliver: Deliver | None = None) -> None:
        self._stopping.discard(step)
        send = _InlineSend(step, deliver or self._events.append, self._stopping)
        self._events.append(capture_outcome(step, work, self._launcher, send))

    def wait(self, timeout_s: float) -> list[Message | Outcome]:
        if not self._events:
            sleep(timeout_s)
        arrived = list(self._events)
        self._events.clear()
        return arrived

    def stop(self, step: str) -> None:
        self._stopping.add(step)

    def kill(self, step: str) -> None:
        """The same as `stop`: only the work itself can end what runs in this thread."""
        self._stopping.add(step)

    def serve_foreground(self, application: Application, example: ExampleRequest | None = None) -> int:
        from cluster import serve_foreground

        return serve_foreground.serve(self._launcher.serve, application, example)

    def close(self) -> None:
        """Does nothing, because all work has ended when `start` returns."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _InlineSend:
    def __init__(self, step: str, deliver: Deliver, stopping: set[str]) -> None:
        self._step = step
        self._deliver = deliver
        self._stopping = stopping
        self._lock = threading.Lock()  # the work may send from several threads

    def __call__(self, message: Message) -> None:
        with self._lock, not_copied():
            self._deliver(replace(message, step=self._step))

    def stopping(self) -> bool:
        return self._step in self._stopping


class InlineLauncher:
    """Runs a gang as one rank in this process, a map item by item, and an application in a subprocess."""

    def __init__(self, http: HttpLimits | None, serve_port: int | None = None) -> None:
        self._http, self._serve_port = http, serve_port
        self._output: Path | None = None

    @contextmanager
    def keep_output(self, directory: Path) -> Iterator[None]:
        self._output = directory
        with copied(directory / "step"):
            yield

    def gang(self, step: str, gang: Gang, send: Send) -> list[Any]:
        alone = Rank(index=0, size=1, rendezvous="", reporter=StepReporter(step, send), uses_gpu=gang.rank.gpus > 0)
        with copied(self._output and self._output / "rank-0"):
            return [gang.function(alone, *gang.arguments)]

    def map(self, step: str, items: Items, send: Send) -> Iterator[tuple[int, Any]]:
        return map_sequentially(items.function, items.items, send)

    def serve(self, application: Application) -> Served:
        from cluster import inline_serve

        return inline_serve.start(application, self._http, self._serve_port)
