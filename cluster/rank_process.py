"""The process of one rank on Ray: an actor that calls the gang's function, once."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from cluster import process_setup
from cluster.base import Message, Outcome
from cluster.message_queue import MessageSender
from cluster.network import LOOPBACK
from cluster.node_address import node_address, use_interface
from cluster.outcome_capture import capture_outcome
from cluster.patience import answer
from cluster.printed_output import redirected
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


def _run_kept(kept: Path | None, function: Callable[..., Any], rank: Rank, arguments: tuple[Any, ...]) -> Any:
    with redirected(kept):
        return function(rank, *arguments)


@ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={"control": 1})  # type: ignore[call-overload]
class RankProcess:
    """The process of one rank. `run` has its own thread; the other methods answer while it runs."""

    def __init__(self, resources: Resources, owner: Any) -> None:
        process_setup.prepare(resources)
        self._owner = owner  # the process of the step, which receives the messages
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._ended: RankOutcome | None = None
        self._batches = 0  # sent to the owner

    @ray.method(concurrency_group="control")
    def location(self) -> RankLocation:
        context = ray.get_runtime_context()
        return RankLocation(context.get_node_id(), os.getpid(), tuple(context.get_accelerator_ids()["GPU"]))

    @ray.method(concurrency_group="control")
    def rendezvous(self, same_node: bool) -> str:
        """The rendezvous address of the gang. Its port stays bound, so that no other process can take it."""
        host = LOOPBACK if same_node else node_address()
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
        self,
        step: str,
        assignment: RankAssignment,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        output: Path | None = None,
    ) -> RankOutcome:
        """Run the function, once. Another call returns the same as the first, see `cluster/patience.py`.

        `output`: what it prints is kept below that directory.
        """
        if self._ended is None:
            self._ended = self._run(step, assignment, function, arguments, output)
        return self._ended

    def _run(
        self,
        step: str,
        assignment: RankAssignment,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        output: Path | None = None,
    ) -> RankOutcome:
        if assignment.gpus:  # all GPUs of the gang on this node, as with torchrun: for peer-to-peer access
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(assignment.gpus)
        if assignment.same_node and sys.platform == "linux":
            os.environ.setdefault(
                "GLOO_SOCKET_IFNAME", "lo"
            )  # the traffic stays on this machine, and no host name is resolved
        elif not assignment.same_node:
            use_interface(node_address())
        sender = MessageSender(self._deliver, self._stopping)
        rank = Rank(
            index=assignment.index,
            size=assignment.size,
            rendezvous=assignment.rendezvous,
            reporter=StepReporter(step, sender),
            local_index=assignment.local_index,
            uses_gpu=bool(assignment.gpus),
            listener=self._listener.fileno() if self._listener else None,
        )
        kept = output and output / f"rank-{assignment.index}"
        outcome = capture_outcome(step, _run_kept, kept, function, rank, arguments)
        ended = RankOutcome(assignment.index, outcome, time.time())
        sender.close()
        return ended

    def _deliver(self, batch: list[Message]) -> None:
        self._batches += 1
        me, number = ray.get_runtime_context().get_actor_id(), self._batches
        answer(lambda: self._owner.deliver.remote(me, number, batch))
