"""The cluster of one command: opened when a step has to run, shared by the jobs of a sweep, closed at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster.base import Executor, Node
from cluster.config import ClusterConfig
from cluster.factory import executor, nodes
from pipelines import execute
from stages.addresses import redact_url


class Session(AbstractContextManager["Session"]):
    """At most one open executor.

    `packages` are the users' packages that work on the cluster must be able to import: a directory each, or a module.
    """

    def __init__(self) -> None:
        self._opened_with: tuple[ClusterConfig, tuple[Path, ...]] | None = None
        self._executor: Executor | None = None
        self._spawns = False  # whether work on the open executor may start gangs, maps or applications

    def nodes(self, config: ClusterConfig, packages: Sequence[Path]) -> Sequence[Node]:
        """The nodes of a cluster. A remote cluster is joined to find them; a local one is not started."""
        return self.executor(config, packages).nodes if config.kind == "remote" else nodes(config)

    def executor(self, config: ClusterConfig, packages: Sequence[Path], *, spawns: bool = True) -> Executor:
        """The executor of a cluster. It is opened at the first call. Raises ClusterError if that fails.

        `spawns`: whether the work may start gangs, maps or applications.
        """
        asked = config, tuple(packages)
        if self._executor is not None and (self._opened_with != asked or (spawns and not self._spawns)):
            self.close()
        if self._executor is None:
            if said := _starting(config, spawns):
                print(said, file=sys.stderr, flush=True)
            self._executor = executor(config, packages, spawns=spawns, preload=[execute.__name__])
            self._opened_with, self._spawns = asked, spawns
        return self._executor

    def close(self) -> None:
        if self._executor is not None:
            self._executor.close()
        self._executor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _starting(config: ClusterConfig, spawns: bool) -> str:
    """What is said while a cluster opens, which takes seconds."""
    if config.kind == "local":
        return "Starting Ray on this machine ..." if spawns else ""
    return f"Joining the Ray cluster at {redact_url(config.address)} ..." if config.kind == "remote" else ""
