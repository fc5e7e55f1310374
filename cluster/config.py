"""Which cluster a run uses, as typed config, and the two things that are asked of it: its nodes and an executor.

`nodes` serves the plan: for `local` and `inline` it neither starts nor imports Ray.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from cluster import machine
from cluster.base import Executor, Node
from stages.base import Config

MINIMUM_OBJECT_STORE_BYTES = 78_643_200  # Ray refuses less


class InlineCluster(Config):
    """This process, without Ray: one step after the other, one rank a gang. For debugging."""

    kind: Literal["inline"] = "inline"


class LocalCluster(Config):
    """A Ray cluster on this machine, started for the run and ended with it."""

    kind: Literal["local"] = "local"
    cpus: PositiveInt | None = None  # null: what the machine has
    gpus: NonNegativeInt | None = None
    memory_bytes: PositiveInt | None = None
    gpu_memory_bytes: PositiveInt | None = None  # of each GPU: what plans hold predictions against; null: nothing
    custom: Mapping[str, NonNegativeFloat] = {}  # resources of your own naming
    object_store_bytes: Annotated[int, Field(ge=MINIMUM_OBJECT_STORE_BYTES)] = 134_217_728  # steps pass files, not data
    placement_timeout_s: PositiveFloat = 60.0  # for a gang to find room


class RemoteCluster(Config):
    """A Ray cluster that is there already."""

    kind: Literal["remote"] = "remote"
    address: str = "auto"  # run: auto (on a node of it) or HOST:PORT of its head; submit: http://HOST:8265
    entrypoint_cpus: NonNegativeFloat = 1.0  # submit: set aside for the driver, which keeps it off a head with 0 CPUs
    gpu_memory_bytes: PositiveInt | None = None  # as above
    connect_timeout_s: PositiveFloat = 10.0
    placement_timeout_s: PositiveFloat = 600.0  # for a step or gang to find room: time for the cluster to grow

    @field_validator("address")
    @classmethod
    def _known_form(cls, address: str) -> str:
        if address == "auto" or re.fullmatch(
            r"https?://[^\s/]+(/\S*)?|[^\s/:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", address
        ):
            return address
        raise ValueError("expected auto, HOST:PORT (run) or http://HOST:8265 (submit)")


ClusterConfig = Annotated[InlineCluster | LocalCluster | RemoteCluster, Field(discriminator="kind")]


def nodes(config: InlineCluster | LocalCluster | RemoteCluster) -> list[Node]:
    """The machines that steps can be given. Joins the cluster for a moment if it is a remote one.

    Raises ClusterError if it can't be reached.
    """
    if isinstance(config, RemoteCluster):
        with executor(config) as joined:
            return joined.nodes
    return [this_machine(config)]


def this_machine(config: InlineCluster | LocalCluster) -> Node:
    """This machine as a node: what the config says, else what is found."""
    asked = config if isinstance(config, LocalCluster) else LocalCluster()
    return Node(
        cpus=asked.cpus or machine.cpus(),
        gpus=machine.gpus() if asked.gpus is None else asked.gpus,
        memory_bytes=asked.memory_bytes or machine.memory_bytes(),
        custom=dict(asked.custom),
        gpu_memory_bytes=asked.gpu_memory_bytes or 0,
    )


def executor(config: InlineCluster | LocalCluster | RemoteCluster) -> Executor:
    """The executor for a cluster, a context manager. Ray is imported only where it is used."""
    if isinstance(config, InlineCluster):
        from cluster.inline import InlineExecutor

        return InlineExecutor(this_machine(config))
    # Both are read when ray is imported. The first would start every worker anew under `uv run`.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from cluster.session import RayExecutor

    return RayExecutor(config)
