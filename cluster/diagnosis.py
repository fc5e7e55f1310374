"""Looks at a cluster from a separate process, which the caller ends: Ray may hang, or end the process that asks.

python -m cluster.diagnosis STATE < CONFIG     # the directory that all nodes share, and the cluster config as JSON;
                                               # prints what it finds as JSON
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from pydantic import TypeAdapter
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.config import ClusterConfig, LocalCluster, RemoteCluster
from cluster.connection import Connection
from stages.base import StageError

NODE_TIMEOUT_S = 20.0  # for a process to start on a node, and answer


def look(config: LocalCluster | RemoteCluster, state: Path) -> Mapping[str, Any]:
    """The cluster's nodes, each with its resources and, unless it did not answer, its facts (`facts_of_node`)."""
    connection = Connection(config)
    mark: Path | None = None
    try:
        connection.wait()
        mark = _mark(state)
        nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        asked = {node["NodeID"]: _ask(node["NodeID"], mark) for node in nodes}
        answered, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=NODE_TIMEOUT_S)
        found = []
        for node in nodes:
            call = asked[node["NodeID"]]
            facts, error = None, "no answer"
            if call in answered:
                try:
                    facts = ray.get(call)
                except ray.exceptions.RayError as failure:
                    error = (str(failure).strip().splitlines() or [type(failure).__name__])[-1]
            found.append(
                {"address": node["NodeManagerAddress"], "resources": node["Resources"], "facts": facts, "error": error}
            )
        return {"nodes": found, "ours": facts_of_node(mark)}
    finally:
        if mark:
            mark.unlink(missing_ok=True)
        connection.close()


def _mark(state: Path) -> Path | None:
    """A new file in the directory, which a node sees if it shares it; None if it can't be written to."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(prefix=".seen-by-nodes-", dir=state)
    except OSError:
        return None
    os.close(descriptor)
    return Path(path)


def _ask(node: str, mark: Path | None) -> ray.ObjectRef[Any]:
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(facts_of_node).options(num_cpus=0, scheduling_strategy=strategy).remote(mark)


def facts_of_node(mark: Path | None) -> dict[str, Any]:
    """The versions of what has to be the same on every node, the free bytes of shared memory, and whether it sees a
    file (None if there is none)."""
    from importlib.metadata import PackageNotFoundError

    try:
        bloomline = version("bloomline")
    except PackageNotFoundError:
        bloomline = ""
    shared = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else None
    return {
        "python": platform.python_version(),
        "ray": version("ray"),
        "bloomline": bloomline,
        "shared_memory_bytes": shared,
        "sees_state": mark.exists() if mark else None,
    }


def main() -> None:
    """Print the diagnosis, or the error, as the last line of standard output."""
    config: Any = TypeAdapter(ClusterConfig).validate_json(sys.stdin.buffer.read())
    try:
        found: Mapping[str, Any] = look(config, Path(sys.argv[1]))
    except StageError as error:
        found = {"error": str(error)}
    print(json.dumps(found), flush=True)
    os._exit(0)  # Ray's core need not be waited for


if __name__ == "__main__":
    main()
