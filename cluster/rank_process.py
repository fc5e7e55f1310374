"""The process of one rank on Ray: an actor that calls the gang's function, once."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray

from cluster import process_setup
from cluster.base import Outcome
from cluster.message_queue import Outbox
from cluster.outcome_capture import attempt
from cluster.reporter import StepReporter
from stages.base import Rank, Resources


@dataclass(frozen=True)
class Place:
    """Where a rank's process is."""

    node: str
    pid: int
    gpus: tuple[str, ...]  # ids of the GPUs on its node that it was given


@dataclass(frozen=True)
class Seat:
    """A rank among its gang."""

    index: int
    size: int
    local_index: int
    rendezvous: str
    gpus: tuple[str, ...]  # of all ranks on its node, in the order of their local indices
    same_node: bool  # the whole gang is on one node


@dataclass(frozen=True)
class Ended:
    """How the function ended on one rank, and when (seconds since the epoch)."""

    rank: int
    outcome: Outcome
    at: float


@ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={"control": 1})  # type: ignore[call-overload]
class RankProcess:
    """One rank's process. `run` has a thread to itself; the other methods answer while it runs."""

    def __init__(self, resources: Resources, owner: Any) -> None:
        process_setup.prepare(resources)
        self._owner = owner  # the process of the step: takes the messages
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None

    @ray.method(concurrency_group="control")
    def place(self) -> Place:
        context = ray.get_runtime_context()
        return Place(context.get_node_id(), os.getpid(), tuple(context.get_accelerator_ids()["GPU"]))

    @ray.method(concurrency_group="control")
    def rendezvous(self, same_node: bool) -> str:
        """The address where the ranks of a gang meet. Its port is kept: nobody else can take it before they do."""
        host = "127.0.0.1" if same_node else str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        self._listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._listener.bind((host, 0))
        port = self._listener.getsockname()[1]
        return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        self._stopping.set()

    @ray.method(concurrency_group="control")
    def ping(self) -> None:
        """Answers if the process lives."""

    def run(self, step: str, seat: Seat, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Ended:
        if seat.gpus:  # every GPU of the gang on this node, as in torchrun: ranks reach each other's memory
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(seat.gpus)
        if seat.same_node and sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nothing leaves the machine, nothing is resolved
        outbox = Outbox(lambda batch: ray.get(self._owner.deliver.remote(batch)), self._stopping)
        rank = Rank(
            index=seat.index,
            size=seat.size,
            rendezvous=seat.rendezvous,
            reporter=StepReporter(step, outbox),
            local_index=seat.local_index,
            uses_gpu=bool(seat.gpus),
            listener=self._listener.fileno() if self._listener else None,
        )
        outcome = attempt(step, function, rank, *arguments)
        ended = Ended(seat.index, outcome, time.time())
        outbox.close()
        return ended
