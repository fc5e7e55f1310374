"""Whether a step can be placed: its demand compared with the cluster's nodes, in words for people.

    fits: needs 0.6 GiB a rank, one of 2 has 11.8 GiB
    needs 41.0 GiB a rank, a node has 24.0 GiB; it fits with steps.pretrain.zero_stage=3

Demands are predictions of stages (`Stage.demand`). A stage also says which values of its `Runtime` fields would lower
its demand (`Stage.cheaper_settings`).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from cluster.base import Node
from cluster.placement import capacity, describe, describe_node
from pipelines.graph import Step
from stages.base import Demand, Resources

ROUNDING = 1e-6  # 0.1 x 3 is more than 0.3 in floating point


def shortage(demand: Demand, nodes: Sequence[Node]) -> str | None:
    """What a demand needs and the nodes do not have; None if it fits, whole or with one of its fallback sizes."""
    lack = _shortage(demand, nodes)
    return lack if lack and _most_ranks(demand, nodes) is None else None


def fit(demand: Demand, nodes: Sequence[Node]) -> str:
    """How much of the nodes' memory a demand that fits will need; "" if the demand states no memory."""
    lack, fewer = _shortage(demand, nodes), _most_ranks(demand, nodes)
    if lack and fewer:
        return f"{lack}; fits with {_ranks(fewer)}: {_needs(fewer, nodes)}"
    needed = _needs(demand, nodes)
    return f"fits: {needed}" if needed else ""


def fit_together(demands: Sequence[Demand], nodes: Sequence[Node]) -> bool:
    """Whether the nodes together have the resources for several steps at once."""
    asked = _total(amounts for demand in demands for amounts in _asked(demand))
    has = _total(map(_amounts, nodes))
    return all(amount <= has.get(name, 0) + ROUNDING for name, amount in asked.items())


def _sums(demand: Demand, nodes: Sequence[Node]) -> tuple[dict[str, float], dict[str, float]]:
    """What a demand asks for, and what the nodes have, each in total by the name of the resource."""
    return _total(_asked(demand)), _total(map(_amounts, nodes))


def _asked(demand: Demand) -> Iterator[dict[str, float]]:
    yield _amounts(demand.task)
    yield {name: demand.ranks * amount for name, amount in _amounts(demand.rank).items()}


def _total(amounts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for of_one in amounts:
        for name, amount in of_one.items():
            total[name] = total.get(name, 0) + amount
    return total


def _amounts(of: Resources | Node) -> dict[str, float]:
    return {"cpus": of.cpus, "gpus": of.gpus, "memory_bytes": of.memory_bytes, **of.custom}


def remedy(step: Step, nodes: Sequence[Node]) -> str:
    """The overrides, suggested by its stage, with which a step that lacks memory would fit, or how close they come."""
    if _lacks_units(step.demand(), nodes):
        return ""
    least: tuple[int, str, Demand] | None = None
    for fields in step.stage.cheaper_settings():
        demand = replace(step, stage=step.stage.model_copy(update=dict(fields))).demand()
        overrides = shlex.join(f"steps.{step.name}.{field}={value}" for field, value in fields.items())
        if not shortage(demand, nodes):
            return f"; it fits with {overrides}"
        needed = demand.rank.gpu_memory_bytes or demand.rank.memory_bytes
        if demand.ranks == step.demand().ranks and (least is None or needed < least[0]):
            least = needed, overrides, demand
    if least is None or not _lacks_memory(least[2], nodes):
        return ""
    return f"; the least is {gib(least[0])}, with {least[1]}"


def _most_ranks(demand: Demand, nodes: Sequence[Node]) -> Demand | None:
    """The demand with the largest of its fallback sizes that fits; None if none does."""
    for count in sorted(demand.fallback_sizes, reverse=True):
        smaller = demand.model_copy(update={"ranks": count, "rank": demand.fallback_sizes[count], "fallback_sizes": {}})
        if not _shortage(smaller, nodes):
            return smaller
    return None


def _shortage(demand: Demand, nodes: Sequence[Node]) -> str | None:
    largest = max(nodes, key=lambda node: (node.gpus, node.cpus), default=None)
    if largest is None:
        return "the cluster has no nodes"
    if lacks := [*_lacks_units(demand, nodes), *_lacks_memory(demand, nodes)]:
        return "; ".join(lacks)
    for who, need in ((f"a {demand.unit}", demand.rank), ("the step", demand.task))[0 if demand.ranks else 1 :]:
        if not capacity(need, 1, nodes):
            return f"{who} needs {describe(need)}; no node has that (the largest has {describe_node(largest)})"
    asked, has = _sums(demand, nodes)
    if asked["memory_bytes"] > has["memory_bytes"]:
        return f"needs {gib(round(asked['memory_bytes']))} of memory, the cluster has {gib(round(has['memory_bytes']))}"
    placed = capacity(demand.rank, demand.ranks, nodes)
    if placed < demand.ranks:
        return f"needs {_ranks(demand)} with {describe(demand.rank)} each; the nodes have room for {placed}"
    return None


def _lacks_units(demand: Demand, nodes: Sequence[Node]) -> list[str]:
    """GPUs, CPUs and other countable resources of which the nodes together have too few."""
    asked, has = _sums(demand, nodes)
    titles = {"gpus": "GPU", "cpus": "CPU"}
    others = sorted(asked.keys() - titles.keys() - {"memory_bytes"})
    found = []
    for name in ("gpus", "cpus", *others):
        amount, there = asked.get(name, 0), has.get(name, 0)
        if amount > there + ROUNDING:
            title = titles.get(name, name)
            plural = "s" if name in titles and amount != 1 else ""
            found.append(f"needs {amount:,g} {title}{plural}, the cluster has {there:,g}")
    return found


def _lacks_memory(demand: Demand, nodes: Sequence[Node]) -> list[str]:
    """A message if a rank needs more memory than a GPU has, or more than its share of the nodes."""
    if not demand.ranks:
        return []
    if demand.rank.gpu_memory_bytes > (of_gpu := _gpu_memory(nodes)) > 0:
        return [_needs_of_gpu(demand, of_gpu)]
    if demand.rank.memory_bytes > _share(demand.ranks, nodes):
        return [_needs(demand, nodes)]
    return []


def _needs(demand: Demand, nodes: Sequence[Node]) -> str:
    """ "needs 0.6 GiB a rank, one of 2 has 11.8 GiB"; "" if the demand states no memory."""
    largest = max(node.memory_bytes for node in nodes)
    if demand.ranks and demand.rank.memory_bytes:
        share = _share(demand.ranks, nodes)
        has = f"one of {demand.ranks}" if share < largest else "a node"
        needed = f"needs {gib(demand.rank.memory_bytes)} a {demand.unit}, {has} has {gib(share)}"
        if demand.rank.gpu_memory_bytes:
            return f"{_needs_of_gpu(demand, _gpu_memory(nodes))}; {needed}"
        return needed
    if demand.task.memory_bytes:
        return f"needs {gib(demand.task.memory_bytes)}, a node has {gib(largest)}"
    return ""


def _needs_of_gpu(demand: Demand, of_gpu: int) -> str:
    has = (
        f", a GPU has {gib(of_gpu)}" if of_gpu else "; the memory of a GPU is not known (set cluster.gpu_memory_bytes)"
    )
    return f"needs {gib(demand.rank.gpu_memory_bytes)} of GPU memory a {demand.unit}{has}"


def _gpu_memory(nodes: Sequence[Node]) -> int:
    """Memory of the largest GPU in bytes; 0 if it is not known."""
    return max((node.gpu_memory_bytes for node in nodes if node.gpus), default=0)


def _share(ranks: int, nodes: Sequence[Node]) -> int:
    """An upper bound of the memory, in bytes, that each of `ranks` equal processes can have on these nodes."""
    memory = [node.memory_bytes for node in nodes]
    return min(max(memory), sum(memory) // ranks)


def _ranks(demand: Demand) -> str:
    return f"{demand.ranks} {demand.unit}{'s' if demand.ranks != 1 else ''}"


def gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
