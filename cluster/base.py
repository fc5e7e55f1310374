"""Where steps run, without saying how: nodes, executors, and what passes between a step and the driver.

An `Executor` starts pieces of work side by side and tells what became of them. Work is a picklable function of a
`Launcher` (what a step may start: a gang, items side by side, a served application) and a `Send` (how it speaks to the
driver). Executors: `cluster/inline.py` (in this process, no Ray) and `cluster/session.py` (Ray, local or joined). No
module outside `cluster/` imports ray, and this module does not either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from stages.base import Application, Demand, Resources, Served, StageError


class ClusterError(StageError):
    """The cluster can't be reached, refuses us, or can't do what was asked. Shown without a traceback."""


@dataclass(frozen=True)
class Node:
    """One machine of a cluster: what steps can be given there."""

    cpus: float
    gpus: float
    memory_bytes: int
    custom: Mapping[str, float]
    gpu_memory_bytes: int = 0  # of each of its GPUs; 0: not told


@dataclass(frozen=True)
class Message:
    """Something that a step says while it runs. `body` holds plain Python values only."""

    step: str
    kind: Literal["progress", "metrics", "note", "figure", "page", "highlight", "started"]
    body: Mapping[str, Any]


class Send(Protocol):
    """Passes messages to the driver. Never blocks for long, never raises for a slow driver."""

    def __call__(self, message: Message) -> None: ...

    def stopping(self) -> bool:
        """True once the driver asked this work to stop. Cheap: may be called every training step."""


@dataclass(frozen=True)
class Gang:
    """What several processes at once are to do: see `stages.base.Context.gang`."""

    function: Callable[..., Any]  # of a Rank and `arguments`
    arguments: tuple[Any, ...] = ()
    ranks: int = 1
    rank: Resources = Resources()  # of each
    fallback_sizes: Mapping[int, Resources] = field(default_factory=dict)
    max_restarts: int = 0


@dataclass(frozen=True)
class Items:
    """What is to be done for each of several items: see `stages.base.Context.map`."""

    function: Callable[[Any], Any]
    items: Sequence[Any]
    workers: int = 0  # 0: as many as there is room for
    resources: Resources = Resources()  # of each
    max_retries: int = 3


class Launcher(Protocol):
    """What a step may start beside itself."""

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


class Executor(Protocol):
    """Starts work within the cluster's resources and tells what became of it. A context manager."""

    concurrent: bool  # False: `start` runs the work to its end

    @property
    def nodes(self) -> list[Node]: ...

    def start(self, step: str, work: Work, demand: Demand, deliver: Deliver | None = None) -> None:
        """Start a piece of work. One that runs to its end right here tells `deliver` what it says while it runs."""

    def wait(self, timeout_s: float) -> list[Message | Outcome]:
        """What else has arrived; returns as soon as there is something, or after the timeout with an empty list."""

    def stop(self, step: str) -> None:
        """Ask the work to stop: its `stopping()` turns true."""

    def kill(self, step: str) -> None:
        """End the work now, with its gang and placement group. Its outcome is `stopped`."""

    def serve_foreground(self, application: Application) -> int:
        """Serve until SIGINT or SIGTERM, finish the requests that are being answered, and return the exit code 0.

        Prints the address once it answers. Call it in the main thread. Raises StageError if it can't be served.
        """

    def close(self) -> None:
        """End everything that is still running and leave the cluster."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
