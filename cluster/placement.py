"""What fits where: plain arithmetic over nodes, and the words in which a refusal is put."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.base import Node
from stages.base import Resources


def fits(asked: Resources, count: int, nodes: Sequence[Node]) -> bool:
    """Whether `count` processes that each ask `asked` have room on `nodes` when nothing else runs there."""
    return room(asked, count, nodes) >= count


def room(asked: Resources, count: int, nodes: Sequence[Node]) -> int:
    """How many processes that each ask `asked`, of `count`, have room on `nodes` when nothing else runs there."""
    return min(count, sum(_room(asked, node, count) for node in nodes))


def _room(asked: Resources, node: Node, count: int) -> int:
    """How many of `count` such processes a node holds."""
    pairs = [(asked.cpus, node.cpus), (asked.gpus, node.gpus), (asked.memory_bytes, node.memory_bytes)]
    pairs += [(amount, node.custom.get(name, 0)) for name, amount in asked.custom.items()]
    # The small addition: 0.1 x 3 is more than 0.3 in floating point.
    return min([count, *(int(has / amount + 1e-6) for amount, has in pairs if amount > 0)])


def options(asked: Resources) -> dict[str, object]:
    """A process's resources as Ray's options for an actor."""
    resources = {name: amount for name, amount in asked.custom.items() if amount > 0}
    return {
        "num_cpus": asked.cpus,
        "num_gpus": asked.gpus,
        "memory": asked.memory_bytes or None,
        "resources": resources or None,
    }


def bundle(asked: Resources) -> dict[str, float]:
    """A process's resources as one bundle of a Ray placement group, which may not be empty."""
    amounts = {"CPU": asked.cpus, "GPU": asked.gpus, "memory": asked.memory_bytes, **asked.custom}
    return {name: amount for name, amount in amounts.items() if amount > 0} or {"CPU": 0.001}


def describe(asked: Resources) -> str:
    """ "2 CPUs, 1 GPU, 3.0 GiB" """
    parts = [_count(asked.cpus, "CPU"), _count(asked.gpus, "GPU")]
    parts += [f"{asked.memory_bytes / 2**30:.1f} GiB"] if asked.memory_bytes else []
    parts += [f"{amount:g} {name}" for name, amount in asked.custom.items()]
    return ", ".join(part for part in parts if part) or "nothing"


def describe_node(node: Node) -> str:
    """What one node has, as `describe` puts it."""
    return describe(Resources(cpus=node.cpus, gpus=node.gpus, memory_bytes=node.memory_bytes, custom=node.custom))


def describe_nodes(nodes: Sequence[Node]) -> str:
    """What a cluster has, a node at a time: "1 node (2 CPUs, 24.0 GiB)"."""
    each = [describe_node(node) for node in nodes]
    shown = "; ".join(each[:4]) + ("; ..." if len(each) > 4 else "")
    return f"{len(nodes)} node{'s' if len(nodes) != 1 else ''} ({shown})"


def _count(amount: float, noun: str) -> str:
    return f"{amount:g} {noun}{'s' if amount != 1 else ''}" if amount else ""
