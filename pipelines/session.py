"""The cluster of one command: opened when something is to run, shared by the jobs of a sweep, closed at the end."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from cluster.base import Executor, Node
from cluster.config import ClusterConfig
from cluster.factory import executor, nodes


class Session(AbstractContextManager["Session"]):
    """At most one open executor."""

    def __init__(self) -> None:
        self._config: ClusterConfig | None = None
        self._executor: Executor | None = None

    def nodes(self, config: ClusterConfig) -> Sequence[Node]:
        """What the cluster has. A remote one is joined to tell; a local one is not started for it."""
        return self.executor(config).nodes if config.kind == "remote" else nodes(config)

    def executor(self, config: ClusterConfig) -> Executor:
        """The executor of a cluster, opened now if it is not open yet. Raises ClusterError if it can't be."""
        if self._executor is not None and self._config != config:
            self.close()
        if self._executor is None:
            self._executor, self._config = executor(config), config
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
