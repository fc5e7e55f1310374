"""What would run, and why: every step is cached, to be run, blocked, or not selected. Pure but for reading the store.

A step is cached if a record of its fingerprint is there, the files are as they were written, and its inputs' content
is the content that it was made from. Where an input has to be made again its content can't be known beforehand, so the
step is cached on condition that the input comes out the same; the runner looks again once it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cluster.base import Node
from pipelines.errors import BloomlineError
from pipelines.fingerprint import Payload, changes, fingerprint, payload
from pipelines.graph import Graph, Step
from pipelines.store import Damage, Record, Store
from stages.base import Demand, Resources

State = Literal["cached", "run", "blocked", "unselected"]


@dataclass(frozen=True)
class StepPlan:
    """What is to be done with one step."""

    step: Step
    state: State
    reason: str
    fingerprint: str
    payload: Payload
    record: Record | None  # of the artifact that is in the store now, whole or not
    demand: Demand


@dataclass(frozen=True)
class Plan:
    """What is to be done with a pipeline, in an order in which it can be done."""

    graph: Graph
    steps: Mapping[str, StepPlan]

    @property
    def blocked(self) -> list[StepPlan]:
        return [step for step in self.steps.values() if step.state == "blocked"]

    @property
    def to_run(self) -> list[StepPlan]:
        return [step for step in self.steps.values() if step.state == "run"]


def make(
    graph: Graph,
    store: Store,
    selected: Collection[str],
    forced: Collection[str] = (),
    nodes: Callable[[], Sequence[Node]] | None = None,
) -> Plan:
    """Plan `selected` steps of a graph. `nodes` tells what the cluster has; it is asked only if something is to run.

    Raises BloomlineError where external content is missing.
    """
    plans: dict[str, StepPlan] = {}
    for name, step in graph.steps.items():
        content = _payload(step, plans, store)
        digest = fingerprint(content)
        record = store.record(digest)
        state, reason = _judge(step, digest, content, record, plans, store, graph.name, name in forced)
        if name not in selected and state != "cached":
            state, reason = "unselected", "not selected" + ("" if record else "; not in the store")
        plans[name] = StepPlan(step, state, reason, digest, content, record, step.demand())
    for name, step_plan in plans.items():
        missing = [other for other in step_plan.step.inputs if plans[other].state == "unselected"]
        if step_plan.state == "run" and missing:
            reason = f"needs {', '.join(missing)}, not in the store and not selected: use from={missing[0]}"
            plans[name] = _with(step_plan, "blocked", reason)
    if nodes is not None and any(step_plan.state == "run" for step_plan in plans.values()):
        available = nodes()
        for name, step_plan in plans.items():
            if step_plan.state == "run" and (lack := lacking(step_plan.demand, available)):
                plans[name] = _with(step_plan, "blocked", lack + _remedy(step_plan.step, available))
    return Plan(graph, plans)


def is_current(record: Record, inputs: Mapping[str, Record]) -> str | None:
    """None if an artifact was made from what its inputs hold now, else why it was not. `inputs`: by step name."""
    for name, entry in record.inputs.items():
        if name in inputs and inputs[name].content != entry.content:
            return f"{name} came out different from what this was made of"
    return None


def lacking(demand: Demand, nodes: Sequence[Node]) -> str | None:
    """What a demand asks that the nodes can't give, or None if it, or with fewer ranks as much as it allows, fits."""
    lack = _lacking(demand, nodes)
    fewer = (demand.model_copy(update={"ranks": count, "rank": rank}) for count, rank in demand.fewer.items())
    return lack if lack and all(_lacking(smaller, nodes) for smaller in fewer) else None


def _remedy(step: Step, nodes: Sequence[Node]) -> str:
    """The override with which the step would fit, as its stage suggests."""
    for fields in step.stage.lighter():
        changed = replace(step, stage=step.stage.model_copy(update=dict(fields)))
        if not lacking(changed.demand(), nodes):
            overrides = " ".join(f"steps.{step.name}.{field}={value}" for field, value in fields.items())
            return f"; it fits with {overrides}"
    return ""


def _lacking(demand: Demand, nodes: Sequence[Node]) -> str | None:
    processes = [("a rank", demand.rank)] * demand.ranks + [("the step", demand.task)]
    largest = max(nodes, key=lambda node: (node.gpus, node.cpus), default=None)
    if largest is None:
        return "the cluster has no nodes"
    share = min(largest_memory := max(node.memory_bytes for node in nodes),
                sum(node.memory_bytes for node in nodes) // max(demand.ranks, 1))  # fmt: skip
    if demand.ranks and demand.rank.memory_bytes > share:
        has = f"one of {demand.ranks} has {_gib(share)}" if share < largest_memory else f"a node has {_gib(share)}"
        return f"needs {_gib(demand.rank.memory_bytes)} a rank, {has}"
    for who, need in processes[:1] + processes[-1:]:
        if not any(_fits(need, node) for node in nodes):
            return f"{who} asks {_resources(need)}; no node has that (the largest has {_node(largest)})"
    for what in ("cpus", "gpus", "memory_bytes"):
        asked = sum(getattr(need, what) for _, need in processes)
        has = sum(getattr(node, what) for node in nodes)
        if asked > has:
            unit = {"cpus": "CPUs", "gpus": "GPUs", "memory_bytes": "bytes of memory"}[what]
            return f"asks {asked:,g} {unit}, the cluster has {has:,g}"
    return None


def _fits(need: Resources, node: Node) -> bool:
    return (
        need.cpus <= node.cpus
        and need.gpus <= node.gpus
        and need.memory_bytes <= node.memory_bytes
        and all(node.custom.get(name, 0) >= amount for name, amount in need.custom.items())
    )


def _judge(
    step: Step,
    digest: str,
    content: Payload,
    record: Record | None,
    plans: Mapping[str, StepPlan],
    store: Store,
    pipeline: str,
    forced: bool,
) -> tuple[State, str]:
    if forced:
        return "run", "forced"
    if record is None:
        return "run", _why_new(step, digest, content, store, pipeline)
    damages = store.inspect(record)
    if damages:
        return "run", f"damaged: {_listed(damages)}"
    upstream = {name: plans[name] for name in step.inputs}
    stale = is_current(record, {name: plan.record for name, plan in upstream.items() if plan.record})
    if stale:
        return "run", stale
    cached = f"by run {record.run_id}"
    redone = [name for name, plan in upstream.items() if plan.state == "run" or "comes out the same" in plan.reason]
    if redone:
        cached += f", if {', '.join(redone)} comes out the same"
    return "cached", cached


def _why_new(step: Step, digest: str, content: Payload, store: Store, pipeline: str) -> str:
    last = store.latest(pipeline, step.name)
    if last is None or last.fingerprint == digest:
        return "never run"
    return "; ".join(changes(dict(last.payload), content, step)) or "never run"


def _payload(step: Step, plans: Mapping[str, StepPlan], store: Store) -> Payload:
    try:
        inputs = {name: plans[name].fingerprint for name in step.inputs}
        return payload(step, inputs, store.digests.digest)
    except OSError as error:
        raise BloomlineError(f"steps.{step.name}: can't read {error.filename}: {error.strerror}.") from error


def _with(plan: StepPlan, state: State, reason: str) -> StepPlan:
    return StepPlan(plan.step, state, reason, plan.fingerprint, plan.payload, plan.record, plan.demand)


def _listed(damages: Sequence[Damage]) -> str:
    more = f" and {len(damages) - 3} more" if len(damages) > 3 else ""
    return ", ".join(map(str, damages[:3])) + more


def _resources(need: Resources) -> str:
    parts = [f"{need.cpus:g} CPUs"] if need.cpus else []
    parts += [f"{need.gpus:g} GPUs"] if need.gpus else []
    parts += [_gib(need.memory_bytes)] if need.memory_bytes else []
    parts += [f"{amount:g} {name}" for name, amount in need.custom.items()]
    return ", ".join(parts) or "nothing"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _node(node: Node) -> str:
    return _resources(Resources(cpus=node.cpus, gpus=node.gpus, memory_bytes=node.memory_bytes, custom=node.custom))
