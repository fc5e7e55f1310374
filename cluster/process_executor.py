"""The executor of this machine without Ray: a forked process for each piece of work.

It starts in a third of a second, and a step in milliseconds. It is for work that starts no gang, map or application.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster.base import ClusterError, Deliver, Message, Node, Outcome, Work
from cluster.fork_server import ForkServer
from cluster.forked_process import Order
from cluster.import_path import python_path
from cluster.temporary_directory import TemporaryDirectory
from stages.base import Application, Demand, ExampleRequest
from stages.child_environment import child_environment

DEATH_TIMEOUT_S = 5.0


@dataclass
class _Running:
    """A piece of work, and the connection to its process."""

    step: str
    connection: Connection
    process: int | None = None  # its id, once it is known


class ProcessExecutor:
    """Runs each piece of work in its own process on this machine."""

    concurrent = True

    def __init__(self, node: Node, packages: Sequence[Path] = (), preload: Sequence[str] = ()) -> None:
        """Its processes can import `packages`, and have imported the modules `preload` when they begin."""
        self.nodes = [node]
        self._preload = preload
        self._directory = TemporaryDirectory()
        self._output = self._directory.path / "output.txt"
        safe = os.environ.get("PYTHONSAFEPATH", "1")  # no imports from the working directory
        self._environment = child_environment({"PYTHONPATH": python_path(packages), "PYTHONSAFEPATH": safe})
        self._server = ForkServer(self._environment, self._output, self._preload)
        self._running: dict[str, _Running] = {}
        self._events: list[Message | Outcome] = []
        self._exits: dict[int, int] = {}  # process id -> exit code
        self._lost = False

    def start(self, step: str, work: Work, demand: Demand, deliver: Deliver | None = None) -> None:
        try:
            order = Order(step, bytes(ForkingPickler.dumps(work)), demand.task)
        except Exception as error:  # pickle raises whatever an object's methods raise
            self._events.append(Outcome(step, "failed", error=f"The work can't be sent to another process: {error}"))
            return
        if self._server.ended:
            self._server.close()
            self._server = ForkServer(self._environment, self._output, self._preload)
        try:
            self._running[step] = _Running(step, self._server.fork())
            self._running[step].connection.send(order)
        except OSError as error:
            self._end(step)
            said = f"The process of step {step} could not be started: {error}. {self._logs()}".strip()
            self._events.append(Outcome(step, "lost", error=said))

    def wait(self, timeout_s: float) -> list[Message | Outcome]:
        if not self._events:
            if self._running:
                connection.wait([running.connection for running in self._running.values()], timeout_s)
            else:
                time.sleep(timeout_s)
            self._exits.update(self._server.exits())
            for running in list(self._running.values()):
                self._receive(running)
        arrived, self._events = self._events, []
        return arrived

    def stop(self, step: str) -> None:
        if running := self._running.get(step):
            with contextlib.suppress(OSError):
                running.connection.send(None)

    def kill(self, step: str) -> None:
        if running := self._running.get(step):
            process = self._process(running)
            if process:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process, signal.SIGKILL)
                self._exit_code(process)
            self._end(step)
            self._events.append(Outcome(step, "stopped"))

    def serve_foreground(self, application: Application, example: ExampleRequest | None = None) -> int:
        raise ClusterError("Applications are served on Ray.")

    def close(self) -> None:
        for step in list(self._running):
            self.kill(step)
        self._server.close()
        if not self._lost:
            self._directory.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self, running: _Running) -> None:
        """Take what has arrived from one process."""
        try:
            while running.connection.poll():
                arrived = running.connection.recv()
                if isinstance(arrived, int):
                    running.process = arrived
                elif isinstance(arrived, Outcome):
                    self._events.append(arrived)
                    return self._end(running.step)
                else:
                    self._events += [replace(message, step=running.step) for message in arrived]
        except (EOFError, OSError):
            self._lost = True
            code = self._exit_code(running.process) if running.process else None
            error = f"The process of step {running.step} was lost: {describe_exit(code)}. {self._logs()}".strip()
            self._events.append(Outcome(running.step, "lost", error=error))
            self._end(running.step)
        return None

    def _process(self, running: _Running) -> int | None:
        """The id of the process. It is the first message of a process, which may not have started yet."""
        if running.process is None and running.connection.poll(DEATH_TIMEOUT_S):
            with contextlib.suppress(EOFError, OSError):
                running.process = running.connection.recv()
        return running.process

    def _exit_code(self, process: int) -> int | None:
        """The exit code of a process that is about to end, None if it can't be known."""
        deadline = time.monotonic() + DEATH_TIMEOUT_S
        while process not in self._exits and time.monotonic() < deadline and not self._server.ended:
            connection.wait([self._server.fileno()], deadline - time.monotonic())
            self._exits.update(self._server.exits())
        return self._exits.get(process)

    def _end(self, step: str) -> None:
        if running := self._running.pop(step, None):
            running.connection.close()

    def _logs(self) -> str:
        """Where the output of the processes is, if there is any."""
        self._lost = True
        return f"What the steps printed is in {self._output}." if self._output.stat().st_size else ""


def describe_exit(code: int | None) -> str:
    """Why a process ended, from its exit code: negative for a signal."""
    if code is None:
        return "the process that started it has ended"
    if code == -signal.SIGKILL:
        return "it was killed (by the system if memory ran out)"
    return f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it exited with code {code}"
