"""What a cluster config stands for: its nodes, for the plan, and its executor, for the run.

For `local` and `inline`, `nodes` neither starts nor imports Ray.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cluster.base import Executor, Node
from cluster.config import InlineCluster, LocalCluster, RemoteCluster
from cluster.import_path import check_packages
from cluster.inline_executor import InlineExecutor
from cluster.machine import this_machine
from cluster.process_executor import ProcessExecutor
from cluster.submitted_job import in_submitted_job

# Read when ray is imported. Without the first, Ray would start every worker again under `uv run`. Without the third, it
# prints what happens to nodes on the output of the run, in addition to our messages.
RAY_ENVIRONMENT = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
}


def nodes(config: InlineCluster | LocalCluster | RemoteCluster) -> list[Node]:
    """The nodes that steps can use. Joins the cluster for a moment if it is a remote one.

    Raises ClusterError if it can't be reached.
    """
    if isinstance(config, RemoteCluster):
        with executor(config) as joined:
            return joined.nodes
    return [this_machine(config)]


def executor(
    config: InlineCluster | LocalCluster | RemoteCluster,
    packages: Sequence[Path] = (),
    *,
    spawns: bool = True,
    preload: Sequence[str] = (),
) -> Executor:
    """The executor for a cluster, a context manager. Ray is imported only where it is used.

    `spawns`: whether the work may start gangs, maps or applications. On this machine Ray is not needed if it may not;
    its processes then begin with the modules `preload` imported.

    `packages` are the directories of users' top-level packages, or single .py modules, that work can import in every
    process that the executor starts. The inline executor starts none: there they must be on this process's `sys.path`.
    In the driver of a submitted job they have no effect: `cluster.jobs.submit` has copied them.

    Raises ClusterError if the cluster can't be reached, or if a package can't be imported under its name.
    """
    if not in_submitted_job():
        check_packages(packages)
    if isinstance(config, InlineCluster):
        return InlineExecutor(this_machine(config), config.http, config.serve_port)
    if isinstance(config, LocalCluster) and not spawns:
        return ProcessExecutor(this_machine(config), packages, preload)
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from cluster.ray_executor import RayExecutor

    return RayExecutor(config, packages)
