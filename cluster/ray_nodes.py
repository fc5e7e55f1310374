"""What the Ray cluster that this process is connected to has, and how much of it is free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import ray

from cluster.base import Node
from stages.base import Resources


def nodes(reserved_cpus: float = 0) -> list[Node]:
    """The live nodes with their total resources, less `reserved_cpus` on the node of this process."""
    found = []
    here = ray.get_runtime_context().get_node_id()
    for entry in ray.nodes():  # type: ignore[no-untyped-call]
        if entry["Alive"]:
            node = _node(entry["Resources"])
            is_here = entry["NodeID"] == here
            found.append(replace(node, cpus=max(node.cpus - reserved_cpus, 0)) if is_here else node)
    return found


def is_alive(node: str) -> bool:
    """Whether the cluster has a node with this id and has not declared it dead."""
    return any(entry["NodeID"] == node and entry["Alive"] for entry in ray.nodes())  # type: ignore[no-untyped-call]


def free_resources() -> Resources:
    """The resources that are free now, summed over all nodes."""
    node = _node(ray.available_resources())  # type: ignore[no-untyped-call]
    return Resources(cpus=node.cpus, gpus=node.gpus, memory_bytes=node.memory_bytes, custom=node.custom)


def _node(resources: Mapping[str, float]) -> Node:
    known = {"CPU", "GPU", "memory", "object_store_memory"}
    custom = {
        name: amount
        for name, amount in resources.items()
        if name not in known and not name.startswith(("node:", "accelerator_type:", "bundle_"))
    }
    return Node(
        cpus=resources.get("CPU", 0),
        gpus=resources.get("GPU", 0),
        memory_bytes=int(resources.get("memory", 0)),
        custom=custom,
    )
