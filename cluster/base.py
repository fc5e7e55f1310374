"""The contract between the engine and a cluster: nodes, executors, and what passes between a step and the driver.

An `Executor` runs pieces of work concurrently and reports their outcomes. Work is a picklable function of a `Launcher`
(with which a step starts a gang, a map or a served application) and a `Send` (which sends messages to the driver).
Executors: `cluster/inline_executor.py` (in this process, without Ray) and `cluster/ray_executor.py` (Ray, local or
joined). No module outside `cluster/` imports ray, and this module does not either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from stages.base import Application, Demand, ExampleRequest, Resources, Served, StageError


class ClusterError(StageError):
    """The cluster can't be reached, rejects us, or can't do what was requested. Shown without a traceback."""


@dataclass(frozen=True)
class Node:
    """One machine of a cluster, with the resources that steps can use there."""

    cpus: float
    gpus: float
    memory_bytes: int
    custom: Mapping[str, float]
    gpu_memory_bytes: int = 0  # of each of its GPUs; 0: not known


@dataclass(frozen=True)
class Message:
    """Something that a step reports while it runs. `body` holds plain Python values only."""

    step: str
    kind: Literal["progress", "metrics", "note", "figure", "page", "highlight", "started"]
    body: Mapping[str, Any]


class Send(Protocol):
    """Passes messages to the driver. Never blocks for long, never raises for a slow driver."""

    def __call__(self, message: Message) -> None: ...

    def stopping(self) -> bool:
        """Whether the driver has asked this work to stop. Cheap enough to call in every training step."""


@dataclass(frozen=True)
class Gang:
    """Work for several processes at the same time: see `stages.base.Context.gang`."""

    function: Callable[..., Any]  # called with a Rank and `arguments`
    arguments: tuple[Any, ...] = ()
    ranks: int = 1
    rank: Resources = Resources()  # of each
    fallback_sizes: Mapping[int, Resources] = field(default_factory=dict)
    max_restarts: int = 0


@dataclass(frozen=True)
class Items:
    """Work for each of several items: see `stages.base.Context.map`."""

    function: Callable[[Any], Any]
    items: Sequence[Any]
    workers: int = 0  # 0: as many as the cluster can place
    resources: Resources = Resources()  # of each
    max_retries: int = 3


class Launcher(Protocol):
    """Starts what a step may start outside its own process."""

    def keep_output(self, directory: Path) -> AbstractContextManager[None]:
        """Within, keep what the step prints in `directory`: its own process in `step`, ranks in `rank-0`, and so on.

        See `cluster/printed_output.py`.
        """

    def gang(self, step: str, gang: Gang, send: Send) -> list[Any]: ...

    def map(self, step: str, items: Items, send: Send) -> Iterator[tuple[int, Any]]: ...

    def serve(self, application: Application) -> Served: ...


Work = Callable[[Launcher, Send], Any]
Deliver = Callable[[Message], None]


@dataclass(frozen=True)
class Outcome:
    """How a piece of work ended."""

    step: str
    state: Literal["done", "failed", "stopped", "lost"]  # lost: its process or node died
    result: Any = None  # what the work returned, if done
    error: str = ""  # one clear message, if failed or lost
    trace: str = ""  # the traceback, empty for a StageError
    node_lost: bool = False  # if lost: with its node, so that the work itself is not to blame


class Executor(Protocol):
    """Runs work within the cluster's resources and reports its outcome. A context manager."""

    concurrent: bool  # False: `start` runs the work to its end

    @property
    def nodes(self) -> list[Node]: ...

    def start(self, step: str, work: Work, demand: Demand, deliver: Deliver | None = None) -> None:
        """Start a piece of work. `step` is its name here: whatever arrives from it has this name.

        If it runs to its end in this call (`concurrent` is False), its messages go to `deliver` while it runs.
        """

    def wait(self, timeout_s: float) -> list[Message | Outcome]:
        """The messages and outcomes that have arrived. Waits for the first one, at most `timeout_s`."""

    def stop(self, step: str) -> None:
        """Ask the work to stop: its `stopping()` becomes true."""

    def kill(self, step: str) -> None:
        """End the work now, with its gang and placement group. Its outcome is `stopped`."""

    def serve_foreground(self, application: Application, example: ExampleRequest | None = None) -> int:
        """Serve until SIGINT, SIGTERM or SIGHUP, finish the requests in flight, and return the exit code 0.

        Prints the address once it answers, and a command that sends the `example`. Must be called in the main thread.
        Raises StageError if serving fails.
        """

    def close(self) -> None:
        """End all running work and leave the cluster."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
