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
from cluster.message_queue import MessageSender
from cluster.outcome_capture import capture_outcome
from cluster.reporter import StepReporter
from stages.base import Rank, Resources


@dataclass(frozen=True)
class RankLocation:
    """Where the process of a rank runs."""

    node: str
    pid: int
    gpus: tuple[str, ...]  # ids of the GPUs of its node that are assigned to it


@dataclass(frozen=True)
class RankAssignment:
    """What a rank knows about itself and its gang."""

    index: int
    size: int
    local_index: int
    rendezvous: str
    gpus: tuple[str, ...]  # ids of the GPUs of all ranks on its node, in the order of their local indices
    same_node: bool  # whether the whole gang is on one node


@dataclass(frozen=True)
class RankOutcome:
    """How the function ended on one rank, and when (seconds since the epoch)."""

    rank: int
    outcome: Outcome
    at: float


@ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={"control": 1})  # type: ignore[call-overload]
class RankProcess:
    """The process of one rank. `run` has its own thread; the other methods answer while it runs."""

    def __init__(self, resources: Resources, owner: Any) -> None:
        process_setup.prepare(resources)
        self._owner = owner  # the process of the step, which receives the messages
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None

    @ray.method(concurrency_group="control")
    def location(self) -> RankLocation:
        context = ray.get_runtime_context()
        return RankLocation(context.get_node_id(), os.getpid(), tuple(context.get_accelerator_ids()["GPU"]))

    @ray.method(concurrency_group="control")
    def rendezvous(self, same_node: bool) -> str:
        """The rendezvous address of the gang. Its port stays bound, so that no other process can take it."""
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
        """Returns if the process is alive."""

    def run(
        self, step: str, assignment: RankAssignment, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> RankOutcome:
        if assignment.gpus:  # all GPUs of the gang on this node, as with torchrun: for peer-to-peer access
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(assignment.gpus)
        if assignment.same_node and sys.platform == "linux":
            os.environ.setdefault(
                "GLOO_SOCKET_IFNAME", "lo"
            )  # the traffic stays on this machine, and no host name is resolved
        sender = MessageSender(lambda batch: ray.get(self._owner.deliver.remote(batch)), self._stopping)
        rank = Rank(
            index=assignment.index,
            size=assignment.size,
            rendezvous=assignment.rendezvous,
            reporter=StepReporter(step, sender),
            local_index=assignment.local_index,
            uses_gpu=bool(assignment.gpus),
            listener=self._listener.fileno() if self._listener else None,
        )
        outcome = capture_outcome(step, function, rank, *arguments)
        ended = RankOutcome(assignment.index, outcome, time.time())
        sender.close()
        return ended
