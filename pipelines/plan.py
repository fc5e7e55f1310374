"""What would run, and why. Every step is cached, to be run, blocked, or not selected. Planning only reads the store.

A step is cached if the store has a record of its fingerprint, its files are as they were written, and its inputs have
the content that it was made from. Where an input has to run again, its content is not known in advance. The step is
then cached on the condition that the input comes out the same, and the runner decides again when the input is done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cluster.base import Node
from pipelines import feasibility
from pipelines.errors import BloomlineError
from pipelines.fingerprint import Payload, changes, fingerprint, payload, shown_payload
from pipelines.graph import Graph, Step
from pipelines.redaction import redacted
from pipelines.store import Damage, Record, Store
from stages.base import Demand

State = Literal["cached", "run", "blocked", "unselected"]


@dataclass(frozen=True)
class StepPlan:
    """What a run would do with one step."""

    step: Step
    state: State
    reason: str
    fingerprint: str
    payload: Payload
    record: Record | None  # of the artifact that is in the store now, undamaged or not
    demand: Demand
    if_same: tuple[str, ...] = ()  # inputs of a cached step that run first: the step runs too if their content differs
    fit: str = ""  # for a step that runs and states its memory: how much it needs, and how much there is
    selected: bool = True

    @property
    def explanation(self) -> str:
        """The reason, with the condition of a cached step if it has one."""
        return f"{self.reason}, if {', '.join(self.if_same)} comes out the same" if self.if_same else self.reason


@dataclass(frozen=True)
class Plan:
    """What a run would do with every step of a pipeline, in an order in which the steps can run."""

    graph: Graph
    steps: Mapping[str, StepPlan]

    @property
    def blocked(self) -> list[StepPlan]:
        return [step for step in self.steps.values() if step.state == "blocked"]

    @property
    def to_run(self) -> list[StepPlan]:
        return [step for step in self.steps.values() if step.state == "run"]

    @property
    def spawns(self) -> bool:
        """Whether a step that will run, or may, starts other processes than its own, or needs a GPU to be assigned."""
        may_run = [step for step in self.steps.values() if step.state == "run" or step.if_same]
        return any(step.step.stage.spawns or step.demand.ranks or step.demand.task.gpus for step in may_run)


def make(
    graph: Graph,
    store: Store,
    selected: Collection[str],
    forced: Collection[str] = (),
    nodes: Callable[[], Sequence[Node]] | None = None,
) -> Plan:
    """Plan the `selected` steps of a graph; of the others, those that they are made from may be cached.

    `nodes` returns the cluster's nodes; it is called only if a step would run.

    Raises BloomlineError if external content is missing.
    """
    plans: dict[str, StepPlan] = {}
    wanted = graph.upstream(selected)
    for name, step in graph.steps.items():
        content = _payload(step, plans, store)
        digest = fingerprint(content)
        record = store.record(digest)
        state, reason = _judge(step, digest, content, record, plans, store, graph.name, name in forced)
        if name not in wanted or (name not in selected and state != "cached"):
            state, reason = "unselected", "not selected" + ("" if record else "; not in the store")
        uncertain = [other for other in step.inputs if plans[other].state == "run" or plans[other].if_same]
        if_same = tuple(uncertain) if state == "cached" else ()
        chosen = name in selected
        plans[name] = StepPlan(
            step, state, reason, digest, content, record, step.demand(), if_same=if_same, selected=chosen
        )
    for name, step_plan in plans.items():
        if step_plan.state != "run":
            continue
        if missing := [other for other in step_plan.step.inputs if plans[other].state == "unselected"]:
            reason = f"needs {', '.join(missing)}, which is not in the store and not selected: use until={name} instead"
            plans[name] = replace(step_plan, state="blocked", reason=reason)
    for name, step_plan in plans.items():
        pin = step_plan.step.options.pin
        other = pin and step_plan.selected and not step_plan.fingerprint.startswith(pin)
        if pin and (step_plan.state == "run" or (step_plan.state == "cached" and other)):
            plans[name] = replace(step_plan, state="blocked", reason=_against_pin(pin, step_plan, store))
    for name, step_plan in plans.items():
        if step_plan.state == "run" and (obstacle := step_plan.step.stage.obstacle()):
            plans[name] = replace(step_plan, state="blocked", reason=redacted(obstacle))
    if nodes is not None and any(step_plan.state == "run" for step_plan in plans.values()):
        available = nodes()
        for name, step_plan in plans.items():
            if step_plan.state != "run":
                continue
            if lack := feasibility.shortage(step_plan.demand, available):
                plans[name] = replace(
                    step_plan, state="blocked", reason=lack + feasibility.remedy(step_plan.step, available)
                )
            else:
                plans[name] = replace(step_plan, fit=feasibility.fit(step_plan.demand, available))
    return Plan(graph, plans)


def is_current(record: Record, inputs: Mapping[str, Record]) -> str | None:
    """None if an artifact was made from the current content of its inputs, else the reason. `inputs`: by step name."""
    for name, entry in record.inputs.items():
        if name in inputs and inputs[name].content != entry.content:
            return f"the content of {name} differs from what this was made from"
    return None


def changed_since(planned: StepPlan, store: Store) -> str:
    """What has changed in a step's external content, or in the source of its package, since it was planned; "" if none.

    A step during which something changed may have used the old or the new content, so its result belongs to neither.
    """
    step = planned.step
    inputs = {edge.step: planned.payload["inputs"][key] for key, edge in step.edges}
    try:
        with store.digests.in_batches():
            now = payload(step, inputs, store.digests.digest)
        return "; ".join(changes(shown_payload(planned.payload, step), shown_payload(now, step), step))
    except OSError as error:
        return f"{error.filename} can no longer be read"
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
        if why := store.unreadable(digest):
            return "run", f"damaged: {why}"
        return "run", _why_new(step, digest, content, store, pipeline)
    damages = store.inspect(record)
    if damages:
        return "run", f"damaged: {_listed(damages)}"
    upstream = {name: plans[name] for name in step.inputs}
    stale = is_current(record, {name: plan.record for name, plan in upstream.items() if plan.record})
    if stale:
        return "run", stale
    return "cached", f"by run {record.run_id}"


def _against_pin(pin: str, planned: StepPlan, store: Store) -> str:
    """Why a pinned step may not run: its configuration changed, or its artifact is not there as it was made."""
    if planned.fingerprint.startswith(pin):
        return f"pinned to {pin}, but it would be computed again: {planned.reason}. Remove the pin to compute it"
    kept = next((record for record in store.records() if record.fingerprint.startswith(pin)), None)
    if kept:
        changed = "; ".join(changes(dict(kept.payload), planned.payload, planned.step, kept.config))
    else:
        changed = "the store has no artifact with that fingerprint" if planned.state == "cached" else planned.reason
    digits = planned.fingerprint[: len(pin)]
    return f"pinned to {pin}, but it is now {digits}: {changed}. Undo the change, or remove the pin"


def _why_new(step: Step, digest: str, content: Payload, store: Store, pipeline: str) -> str:
    last = store.latest(pipeline, step.name)
    if last is None or last.fingerprint == digest:
        return "never run"
    return "; ".join(changes(dict(last.payload), shown_payload(content, step), step, last.config)) or "never run"


def _payload(step: Step, plans: Mapping[str, StepPlan], store: Store) -> Payload:
    try:
        inputs = {name: plans[name].fingerprint for name in step.inputs}
        with store.digests.in_batches():
            return payload(step, inputs, store.digests.digest)
    except OSError as error:
        raise BloomlineError(f"steps.{step.name}: can't read {error.filename}: {error.strerror}.") from error


def _listed(damages: Sequence[Damage]) -> str:
    more = f" and {len(damages) - 3} more" if len(damages) > 3 else ""
    return ", ".join(map(str, damages[:3])) + more
