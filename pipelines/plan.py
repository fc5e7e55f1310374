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
from pipelines import room
from pipelines.errors import BloomlineError
from pipelines.fingerprint import Payload, changes, fingerprint, payload
from pipelines.graph import Graph, Step
from pipelines.store import Damage, Record, Store
from stages.base import Demand

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
    room: str = ""  # of a step to be run that says what memory it needs: how much that is, of how much there is


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
            reason = f"needs {', '.join(missing)}, not whole in the store and not selected: use until={name} instead"
            plans[name] = replace(step_plan, state="blocked", reason=reason)
    if nodes is not None and any(step_plan.state == "run" for step_plan in plans.values()):
        available = nodes()
        for name, step_plan in plans.items():
            if step_plan.state != "run":
                continue
            if lack := room.lacking(step_plan.demand, available):
                plans[name] = replace(step_plan, state="blocked", reason=lack + room.remedy(step_plan.step, available))
            else:
                plans[name] = replace(step_plan, room=room.fitting(step_plan.demand, available))
    return Plan(graph, plans)


def is_current(record: Record, inputs: Mapping[str, Record]) -> str | None:
    """None if an artifact was made from what its inputs hold now, else why it was not. `inputs`: by step name."""
    for name, entry in record.inputs.items():
        if name in inputs and inputs[name].content != entry.content:
            return f"{name} came out different from what this was made of"
    return None


def changed_since(planned: StepPlan, store: Store) -> str:
    """What of a step's external content is no longer what it was planned with; "" if all is.

    What the step made meanwhile may come from either, so it is the result of neither.
    """
    step = planned.step
    inputs = {edge.step: planned.payload["inputs"][key] for key, edge in step.edges}
    try:
        return "; ".join(changes(planned.payload, payload(step, inputs, store.digests.digest), step))
    except OSError as error:
        return f"{error.filename} can't be read any more"
    except BloomlineError as error:
        return str(error)


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


def _listed(damages: Sequence[Damage]) -> str:
    more = f" and {len(damages) - 3} more" if len(damages) > 3 else ""
    return ", ".join(map(str, damages[:3])) + more
