"""Which processes fit on which nodes, and descriptions of resources for messages."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.base import Node
from stages.base import Resources


def fits(needed: Resources, count: int, nodes: Sequence[Node]) -> bool:
    """Whether `count` processes that need `needed` each fit on `nodes` when nothing else runs there."""
    return capacity(needed, count, nodes) >= count


def capacity(needed: Resources, limit: int, nodes: Sequence[Node]) -> int:
    """How many processes that need `needed` each fit on `nodes` when nothing else runs there, up to `limit`."""
    return min(limit, sum(_node_capacity(needed, node, limit) for node in nodes))


def _node_capacity(needed: Resources, node: Node, limit: int) -> int:
    pairs = [(needed.cpus, node.cpus), (needed.gpus, node.gpus), (needed.memory_bytes, node.memory_bytes)]
    pairs += [(amount, node.custom.get(name, 0)) for name, amount in needed.custom.items()]
    # The small addition is needed because 0.1 x 3 is more than 0.3 in floating point.
    return min([limit, *(int(has / amount + 1e-6) for amount, has in pairs if amount > 0)])


def options(needed: Resources) -> dict[str, object]:
    """The resources of a process as Ray's options for an actor or task."""
    resources = {name: amount for name, amount in needed.custom.items() if amount > 0}
    return {
        "num_cpus": needed.cpus,
        "num_gpus": needed.gpus,
        "memory": needed.memory_bytes or None,
        "resources": resources or None,
    }


def bundle(needed: Resources) -> dict[str, float]:
    """The resources of a process as one bundle of a Ray placement group, which must not be empty."""
    amounts = {"CPU": needed.cpus, "GPU": needed.gpus, "memory": needed.memory_bytes, **needed.custom}
    return {name: amount for name, amount in amounts.items() if amount > 0} or {"CPU": 0.001}


def describe(needed: Resources) -> str:
    """For example "2 CPUs, 1 GPU, 3.0 GiB"."""
    parts = [_count(needed.cpus, "CPU"), _count(needed.gpus, "GPU")]
    parts += [f"{needed.memory_bytes / 2**30:.1f} GiB"] if needed.memory_bytes else []
    parts += [f"{amount:g} {name}" for name, amount in needed.custom.items()]
    return ", ".join(part for part in parts if part) or "nothing"


def describe_node(node: Node) -> str:
    """The resources of a node, in the form of `describe`."""
    return describe(Resources(cpus=node.cpus, gpus=node.gpus, memory_bytes=node.memory_bytes, custom=node.custom))


def describe_nodes(nodes: Sequence[Node]) -> str:
    """The nodes of a cluster: "1 node (2 CPUs, 24.0 GiB)". Lists four of them at most."""
    each = [describe_node(node) for node in nodes]
    shown = "; ".join(each[:4]) + ("; ..." if len(each) > 4 else "")
    return f"{len(nodes)} node{'s' if len(nodes) != 1 else ''} ({shown})"


def _count(amount: float, noun: str) -> str:
    return f"{amount:g} {noun}{'s' if amount != 1 else ''}" if amount else ""
