"""Helpers for the engine's tests: they complete a plan without running a stage, or run it on threads."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster.base import Deliver, Executor, Message, Node, Outcome, Work
from pipelines.graph import build, select
from pipelines.plan import Plan, make
from pipelines.provenance import Provenance
from pipelines.runner import Runner
from pipelines.store import Record, Store, StoreConfig
from pipelines.store.record import InputEntry
from pipelines.summary import RunSummary, StepSummary
from stages.base import Application, Demand, ExampleRequest, StageError, Stopped


def s3_config(endpoint: str, bucket: str, state: Path) -> StoreConfig:
    """A store in a bucket, which is made unless it is there."""
    import s3fs

    options = {"endpoint_url": endpoint, "key": "k", "secret": "s"}
    s3fs.S3FileSystem(**options).makedirs(bucket, exist_ok=True)
    return StoreConfig(root=f"s3://{bucket}/root", options=options, state_directory=str(state))


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


class NoCluster:
    """A launcher for stages that start nothing. What they print is not kept."""

    def keep_output(self, directory: Path) -> AbstractContextManager[None]:
        return nullcontext()


class ThreadExecutor:
    """An executor on threads of this process, so that the runner's tests need no cluster."""

    concurrent = True

    def __init__(self, cpus: float = 4) -> None:
        self.nodes = [Node(cpus=cpus, gpus=0, memory_bytes=8 << 30, custom={})]
        self._events: queue.Queue[Message | Outcome] = queue.Queue()
        self._stopping: dict[str, threading.Event] = {}

    def start(self, step: str, work: Work, demand: Demand, deliver: Deliver | None = None) -> None:
        stopping = self._stopping[step] = threading.Event()
        threading.Thread(target=self._run, args=(step, work, stopping), daemon=True).start()

    def _run(self, step: str, work: Work, stopping: threading.Event) -> None:
        events = self._events

        class Sender:
            def __call__(self, message: Message) -> None:
                events.put(replace(message, step=step))

            def stopping(self) -> bool:
                return stopping.is_set()

        try:
            events.put(Outcome(step, "done", work(NoCluster(), Sender())))  # type: ignore[arg-type]
        except Stopped:
            events.put(Outcome(step, "stopped"))
        except StageError as error:
            events.put(Outcome(step, "failed", error=str(error)))
        except Exception as error:
            events.put(Outcome(step, "failed", error=repr(error), trace=traceback.format_exc()))

    def wait(self, timeout_s: float) -> list[Message | Outcome]:
        try:
            found = [self._events.get(timeout=timeout_s)]
        except queue.Empty:
            return []
        while not self._events.empty():
            found.append(self._events.get())
        return found

    def stop(self, step: str) -> None:
        self._stopping[step].set()

    def kill(self, step: str) -> None:
        self._events.put(Outcome(step, "stopped"))

    def serve_foreground(self, application: Application, example: ExampleRequest | None = None) -> int:
        raise RuntimeError("this executor serves nothing")

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Recorder:
    """An observer that keeps the events of a run and its notes."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.notes: list[str] = []

    def run_started(self, run: RunSummary) -> None:
        self.events.append("run started")

    def step_started(self, step: StepSummary) -> str | None:
        self.events.append(f"{step.name} started")
        return f"tracked-{step.name}"

    def step_message(self, message: Message) -> None:
        if message.kind == "note":
            self.notes.append(f"{message.step}: {message.body['text']}")

    def step_finished(self, step: StepSummary, record: Record | None) -> None:
        self.events.append(f"{step.name} {step.state}")

    def run_finished(self, run: RunSummary) -> None:
        self.events.append(f"run {run.state}")


def runner_of(
    store: Store,
    steps: dict[str, Any],
    executor: Executor | None = None,
    observer: Recorder | None = None,
    user: str = "",
    **selection: Any,
) -> tuple[Runner, Recorder]:
    """Plan steps as the command line would; what runs them, and what notes it."""
    graph = build("demo", steps)
    chosen = select(graph, selection.get("from_", ()), selection.get("until", ()), selection.get("only", ()))
    runs_on: Executor = executor or ThreadExecutor()
    plan = make(graph, store, chosen, selection.get("force", ()), lambda: runs_on.nodes)
    assert not plan.blocked
    recorder = observer or Recorder()
    provenance = Provenance(f"run-{time.time_ns()}", "bloomline run", "c0ffee", False, {"python": "3"}, user)
    return Runner(plan, store, runs_on, provenance, "name: demo\n", [recorder]), recorder


def run(store: Store, steps: dict[str, Any], *given: Any, **named: Any) -> tuple[RunSummary, Runner, Recorder]:
    """Plan and run steps; the other arguments are those of `runner_of`."""
    runner, recorder = runner_of(store, steps, *given, **named)
    return runner.run(), runner, recorder


def states(summary: RunSummary) -> str:
    """`a:done b:cached ...` in the order of the names."""
    return " ".join(f"{step.name}:{step.state}" for step in sorted(summary.steps, key=lambda step: step.name))
