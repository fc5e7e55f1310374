"""Completes the steps of a plan without running a stage, for tests of what comes after."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pipelines.plan import Plan
from pipelines.store import Record, Store
from pipelines.store.record import InputEntry


def complete(store: Store, plan: Plan, run_id: str = "run", content: Mapping[str, str] | None = None) -> None:
    """Commit an artifact for every step that the plan would run. `content`: the text of a step, else its name."""
    records = {name: step.record for name, step in plan.steps.items() if step.state == "cached"}
    for name, step_plan in plan.steps.items():
        if step_plan.state != "run":
            continue
        records[name] = put(store, plan, name, run_id, (content or {}).get(name, name), records)
        store.set_latest(plan.graph.name, name, step_plan.fingerprint)


def put(
    store: Store, plan: Plan, name: str, run_id: str, text: str, inputs: Mapping[str, Record | None] | None = None
) -> Record:
    """Commit one artifact that holds a text."""
    step_plan = plan.steps[name]
    staged = store.stage(step_plan.fingerprint)
    (staged / "text.txt").write_text(text)
    files = store.list_files(staged)
    record = Record(
        fingerprint=step_plan.fingerprint,
        payload=step_plan.payload,
        pipeline=plan.graph.name,
        step=name,
        stage=step_plan.step.stage_name,
        artifact=step_plan.step.produces.__name__,
        location=store.location(step_plan.step.stage_name, name, step_plan.fingerprint),
        files=files,
        config={},
        inputs={
            source: InputEntry(fingerprint=made.fingerprint, content=made.content)
            for source in step_plan.step.inputs
            if (made := (inputs or {}).get(source))
        },
        metrics={},
        headline=None,
        highlights={},
        describe={},
        created=time.time(),
        seconds=0.0,
        run_id=run_id,
        tracking_run_id=None,
        git_commit=None,
        git_dirty=False,
        versions={},
    )
    store.put(staged, record.location, files)
    store.commit(record)
    return record
