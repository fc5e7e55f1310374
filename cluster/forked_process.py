"""The process of a step without Ray: it runs the work, sends its messages and its outcome, and ends.

On its connection it sends its process id, then batches of messages, then the outcome. It receives an `Order`, and None
as the request to stop.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, NoReturn

from cluster import process_setup
from cluster.base import Gang, Items, Outcome, Send
from cluster.message_queue import MessageSender
from cluster.outcome_capture import capture_outcome
from cluster.printed_output import redirected
from cluster.sequential_map import map_sequentially
from stages.base import Application, Resources, Served, StageError


@dataclass(frozen=True)
class Order:
    """What the process is to do."""

    step: str
    work: bytes  # a pickled `cluster.base.Work`
    resources: Resources


def run(connection: Connection) -> NoReturn:
    """Carry out the order that arrives on the connection. The main function of the process."""
    os.setsid()  # its own children end with it: whoever ends it ends its group
    connection.send(os.getpid())
    order: Order = connection.recv()
    process_setup.prepare(order.resources)
    stopping = threading.Event()
    threading.Thread(target=_listen, args=(connection, stopping), name="stop", daemon=True).start()
    sender = MessageSender(connection.send, stopping)
    outcome = capture_outcome(order.step, _carry_out, order.work, sender)
    sender.close()
    try:
        message = ForkingPickler.dumps(outcome)
    except Exception as error:
        refusal = f"The result can't be sent to another process: {error}"
        message = ForkingPickler.dumps(Outcome(order.step, "failed", error=refusal))
    connection.send_bytes(message)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _carry_out(work: bytes, send: Send) -> Any:
    return ForkingPickler.loads(work)(LonelyLauncher(), send)


def _listen(connection: Connection, stopping: threading.Event) -> None:
    """Wait for the request to stop. If the driver is gone, nothing needs this process any more."""
    try:
        connection.recv()
        stopping.set()
        connection.recv()
    except (EOFError, OSError):
        os.killpg(0, signal.SIGKILL)


class LonelyLauncher:
    """Starts nothing: for stages that have said that they don't need it."""

    def keep_output(self, directory: Path) -> AbstractContextManager[None]:
        return redirected(directory / "step")

    def gang(self, step: str, gang: Gang, send: Send) -> list[Any]:
        raise _refusal(step, "gang")

    def map(self, step: str, items: Items, send: Send) -> Iterator[tuple[int, Any]]:
        if items.workers != 1:
            raise _refusal(step, "map")
        return map_sequentially(items.function, items.items, send)

    def serve(self, application: Application) -> Served:
        raise _refusal("", "serve")


def _refusal(step: str, method: str) -> StageError:
    name = f" of step {step}" if step else ""
    return StageError(
        f"The stage{name} calls ctx.{method}, and its class says `spawns = False`: remove that line from the class."
    )
