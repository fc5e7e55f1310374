"""Runs a plan: starts every step whose inputs are ready, within the cluster's resources, until all are finished.

The runner knows the executor only by its protocol and the world only by its observers (terminal, tracking, report).
It holds the lease of a step while the step runs, writes the record when it is done, and decides again for a step that
was planned as cached on condition. A failed step lets its siblings finish; what depends on it is skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Literal, Self

from cluster import stop_signals
from cluster.base import Executor, Message, Outcome
from pipelines import feasibility
from pipelines.agenda import Agenda
from pipelines.errors import disk_error
from pipelines.execute import Job, Made, execute
from pipelines.failure import last_frames
from pipelines.logs.kept_log import RAW_OUTPUT
from pipelines.observer import Observer
from pipelines.plan import Plan, changed_since, is_current
from pipelines.provenance import Provenance
from pipelines.redaction import redacted, redacted_values
from pipelines.step_state import StepState
from pipelines.store import Record, Store
from pipelines.store.json_values import plain, text
from pipelines.store.lease import Leases
from pipelines.summary import RunSummary, State
from stages.base import Demand

POLL_S = 0.25
LEASE_POLL_S = 1.0
ROOM_POLL_S = 1.0  # nodes may join
STOP_GRACE_S = 20.0  # for a step to save what it has, before it is ended
LONGEST_BACKOFF_S = 30.0
NODE_LOSSES = 3  # how often a step is started again because its node was lost, in addition to its `retries`


class Runner:
    """One execution of a plan."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        executor: Executor,
        provenance: Provenance,
        config_yaml: str,
        observers: Sequence[Observer],
        others: Callable[[], Sequence[Demand]] = tuple,
    ) -> None:
        """`others`: what the steps of other runs use of the same executor now."""
        self._plan = plan
        self._store = store
        self._executor = executor
        self._provenance = provenance
        self._config_yaml = config_yaml
        self._observers = observers
        self._others = others
        self._directory = store.config.state / "runs" / provenance.run_id
        self._leases = Leases(store.files, store.config.lease_timeout_s, provenance.run_id, provenance.user)
        self._steps = {name: StepState(step, reason=step.explanation) for name, step in plan.steps.items()}
        self._agenda = Agenda({name: step.step.inputs for name, step in plan.steps.items()})
        self._unfinished = len(self._steps)
        self._running: dict[str, StepState] = {}
        self._freed = True  # a step has ended since the last look for room
        self._seen_others: Sequence[Demand] = ()
        self._looked = 0.0  # monotonic seconds
        self._full: list[Demand] = []  # demands for which there was no room at the last look
        self._began = time.time()
        self._signal = 0
        self._stop_deadline: float | None = None

    def run(self) -> RunSummary:
        """Run the plan. Returns when every step is finished, or when the run was stopped."""
        with stop_signals.handled(self.stop), self:
            while self.advance():
                for event in self._executor.wait(POLL_S):
                    self.receive(event)
        return self.end()

    def __enter__(self) -> Self:
        self._tell(lambda observer: observer.run_started(self.summary("running")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leases.close()

    def receive(self, event: Message | Outcome) -> None:
        """Take note of what a step has sent, or of how it ended."""
        if isinstance(event, Outcome):
            self._on_outcome(event)
        else:
            self._on_message(event)

    def end(self) -> RunSummary:
        """The summary of the run, once `advance` has returned False. The observers get it too."""
        states = {step.state for step in self._steps.values()}
        state: Literal["done", "failed", "stopped"] = "done"
        if self._signal:
            state = "stopped"
        elif states & {"failed", "skipped", "stopped"}:
            state = "failed"
        summary = self.summary(state)
        self._tell(lambda observer: observer.run_finished(summary))
        return summary

    @property
    def exit_code(self) -> int:
        """0, or 1 after a failure, or 128 + the number of the signal that stopped the run."""
        if self._signal:
            return 128 + self._signal
        return int(any(step.state in ("failed", "skipped", "stopped") for step in self._steps.values()))

    # -- the loop -----------------------------------------------------------------------------------------------

    def advance(self) -> bool:
        """Start every step that can start. False when all steps are finished."""
        if self._signal:
            self._wind_down()
            return self._unfinished > 0
        for name in self._agenda.round(self._room_may_be_free()):
            step = self._steps[name]
            if step.state == "waiting" and not self._signal:
                try:
                    self._consider(step)
                except OSError as error:  # the store is full, read-only or unreachable
                    step.attempts += 1
                    self._fail(step, disk_error(error))
        return self._unfinished > 0

    @property
    def waits_for_room(self) -> bool:
        """Whether a step could start if other steps did not use the cluster."""
        return self._agenda.waits_for_room

    def _consider(self, step: StepState) -> None:
        name = step.plan.step.name
        if step.plan.state == "unselected":
            return self._finish(step, "unselected")
        inputs = {source: self._steps[source] for source in step.plan.step.inputs}
        broken = [source for source, other in inputs.items() if other.finished and other.record is None]
        if broken:
            cause = ", ".join(f"{source}, which {self._steps[source].became}" for source in broken)
            step.reason = f"needs {cause}"
            return self._finish(step, "skipped")
        if not all(other.finished for other in inputs.values()):
            return None
        records = {source: other.record for source, other in inputs.items() if other.record}
        if step.plan.state == "cached" and step.plan.record:
            stale = is_current(step.plan.record, records)
            if stale is None:
                return self._take(step, step.plan.record, step.plan.reason)
            if pin := step.plan.step.options.pin:
                step.error = f"It is pinned to {pin}, and {stale}. Remove the pin to compute it again."
                return self._finish(step, "failed")
            step.reason = stale
        if time.monotonic() < step.not_before:
            return self._agenda.again(name)
        if not self._may_start(step, records):
            return None if step.finished else self._agenda.when_there_is_room(name)
        holder = self._leases.acquire(step.plan.fingerprint)
        if holder:
            self._agenda.again(name)
            step.not_before = time.monotonic() + LEASE_POLL_S
            if step.waits_for != holder:
                step.waits_for = holder
                self._note(name, f"waits for {holder}, which is computing it")
            return None
        if self._take_made(step, records):
            return self._leases.release(step.plan.fingerprint)
        return self._start(step, records)

    def _take_made(self, step: StepState, records: dict[str, Record]) -> bool:
        """Use what another step or run has made since the plan, if there is such a thing."""
        made = self._store.record(step.plan.fingerprint)
        if not made or made == step.plan.record or is_current(made, records) or self._store.inspect(made):
            return False
        in_this_run = made.run_id == self._provenance.run_id
        self._take(step, made, f"the same as {made.step}" if in_this_run else f"by run {made.run_id}, meanwhile")
        return True

    def _start(self, step: StepState, records: dict[str, Record]) -> None:
        name = step.plan.step.name
        step.state = "running"
        self._running[name] = step
        step.attempts += 1
        step.started = time.time()
        step.frames, step.traceback = "", None
        if step.tracking_run_id is None:
            for observer in self._observers:
                step.tracking_run_id = observer.step_started(step.summary(self._store)) or step.tracking_run_id
        kinds = {source: self._plan.graph.steps[source].produces for source in step.plan.step.inputs}
        job = Job(
            step=name,
            stage_name=step.plan.step.stage_name,
            stage=step.plan.step.stage,
            produces=step.plan.step.produces,
            fingerprint=step.plan.fingerprint,
            inputs={source: (record, kinds[source]) for source, record in records.items()},
            store=self._store.config.for_steps(),
            output=self._directory / RAW_OUTPUT / name,
        )
        self._executor.start(name, partial(execute, job), step.plan.demand, self._on_message)

    def _room_may_be_free(self) -> bool:
        """Whether to look again for room for the steps that wait for it."""
        others, now = self._others(), time.monotonic()
        look = self._freed or others != self._seen_others or now - self._looked >= ROOM_POLL_S
        if look:
            self._freed, self._seen_others, self._looked, self._full = False, others, now, []
        return look

    def _may_start(self, step: StepState, records: dict[str, Record]) -> bool:
        """Whether the step's demand fits together with those of the running steps. False while another step with the
        same fingerprint runs, because its result serves both. Without room, what was made meanwhile is taken."""
        running = [other.plan for other in self._running.values()]
        if any(other.fingerprint == step.plan.fingerprint for other in running):
            return False
        demand = step.plan.demand
        if demand in self._full:
            return False
        demands = [*(other.demand for other in running), *self._others(), demand]
        fits = len(demands) == 1 or (
            self._executor.concurrent and feasibility.fit_together(demands, self._executor.nodes)
        )
        if fits or self._take_made(step, records):
            return fits
        self._full.append(demand)
        if self._executor.concurrent and step.waits_for != "room":
            step.waits_for = "room"
            users = ", ".join(other.step.name for other in running) or "the steps of other jobs"
            self._note(step.plan.step.name, f"waits for room on the cluster, in use by {users}")
        return False

    # -- events -------------------------------------------------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        if message.kind != "figure":  # whose body holds bytes
            message = replace(message, body=redacted_values(plain(message.body)))
        try:
            message = self._keep(message)
        except OSError as error:  # figures and pages must not end a run
            return self._note(message.step, f"{message.kind} {message.body.get('name')}: {disk_error(error)}")
        self._tell(lambda observer: observer.step_message(message))
        return None

    def _keep(self, message: Message) -> Message:
        """Keep a message of a step. Figures and pages are returned as files of the run's directory."""
        step = self._steps[message.step]
        if message.kind == "metrics":
            step.metrics.update(message.body["values"])
        elif message.kind == "highlight":
            step.highlights[message.body["title"]] = message.body["text"]
        elif message.kind in ("figure", "page"):
            name, is_page = message.body["name"], message.kind == "page"
            path = self._directory / f"{message.kind}s" / message.step / (name if is_page else f"{name}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(message.body["text"].encode() if is_page else message.body["png"])
            (step.pages if is_page else step.figures)[name] = path
            message = replace(message, body={"name": name, "path": path})
        return message

    def _on_outcome(self, outcome: Outcome) -> None:
        step = self._steps[outcome.step]
        self._running.pop(outcome.step, None)
        self._freed = True
        step.end_attempt(outcome.state)
        if step.finished:
            return None
        if outcome.state == "done":
            try:
                return self._commit(step, outcome.result)
            except OSError as error:
                return self._fail(step, disk_error(error))
        # A signal to a whole process group (`timeout`, systemd, Slurm) ends the cluster that was started here as well.
        if outcome.state == "stopped" or (outcome.state == "lost" and self._signal):
            self._leases.release(step.plan.fingerprint)
            return self._finish(step, "stopped")
        if outcome.node_lost and step.node_losses < NODE_LOSSES:
            return self._start_again(step, outcome.error)
        if outcome.trace:
            self._keep_trace(step, redacted(text(outcome.trace)))
        return self._fail(step, text(outcome.error))

    def _start_again(self, step: StepState, error: str) -> None:
        """Let a step wait for another start after the loss of its node."""
        self._leases.release(step.plan.fingerprint)
        step.node_losses += 1
        step.state = "waiting"
        self._agenda.again(step.plan.step.name)
        self._note(step.plan.step.name, f"{error} It is started again ({step.node_losses} of {NODE_LOSSES}).")

    def _commit(self, step: StepState, made: Made) -> None:
        """Write the record of a step's artifact. Only then can other steps use it."""
        if changed := redacted(changed_since(step.plan, self._store)):
            self._leases.release(step.plan.fingerprint)
            step.error = f"While it ran, {changed}. The result was not kept. Run the same command again."
            return self._finish(step, "failed")
        inputs = {source: self._steps[source].record for source in step.plan.step.inputs}
        made = replace(made, describe=redacted_values(made.describe))
        record = step.to_record(self._plan.graph.name, made, inputs, self._provenance)
        self._store.commit(record)
        self._store.set_latest(record.pipeline, record.step, record.fingerprint)
        self._leases.release(step.plan.fingerprint)
        step.record = record
        return self._finish(step, "done")

    def _fail(self, step: StepState, error: str) -> None:
        """Mark a step as failed, or schedule another attempt if it has retries left."""
        self._leases.release(step.plan.fingerprint)
        step.error, step.record = redacted(error), None
        failures = step.attempts - step.node_losses
        if failures <= step.plan.step.options.retries and not self._signal:
            backoff = min(2.0**failures, LONGEST_BACKOFF_S)
            step.state, step.not_before = "waiting", time.monotonic() + backoff
            self._agenda.again(step.plan.step.name)
            again = f"Tries again in {backoff:.0f} s ({failures} of {step.plan.step.options.retries})."
            return self._note(step.plan.step.name, f"{error} {again}")
        return self._finish(step, "failed")

    def _take(self, step: StepState, record: Record, reason: str) -> None:
        """Use an artifact that is already in the store."""
        step.record, step.reason = record, reason
        step.metrics, step.highlights = dict(record.metrics), dict(record.highlights)
        step.figures, step.pages = self._store.figures(record), self._store.pages(record)
        self._store.set_latest(self._plan.graph.name, step.plan.step.name, record.fingerprint)
        self._finish(step, "cached")

    def _finish(self, step: StepState, state: State) -> None:
        self._unfinished -= not step.finished
        step.state = state
        self._agenda.finished(step.plan.step.name)
        if step.record is None and state == "unselected":
            step.record = step.plan.record
        if state != "unselected":
            self._tell(lambda observer: observer.step_finished(step.summary(self._store), step.record))

    def _wind_down(self) -> None:
        """After a signal: start nothing, give running steps time to save their progress, then end them."""
        now = time.monotonic()
        running = list(self._running.values())
        if self._stop_deadline is None:
            self._stop_deadline = now + STOP_GRACE_S
            for step in running:
                self._executor.stop(step.plan.step.name)
        elif now > self._stop_deadline:
            for step in running:
                self._executor.kill(step.plan.step.name)
            self._stop_deadline = now + STOP_GRACE_S
        for step in self._steps.values():
            if step.state == "waiting":
                self._finish(step, "unselected" if step.plan.state == "unselected" else "stopped")

    def stop(self, number: int, frame: FrameType | None = None) -> None:
        """Stop the run in order, as the signal of that number asks; at once if it was asked before."""
        if self._signal:
            self._stop_deadline = 0.0  # a second signal ends them at once
            self._store.hurry()
            if not self._executor.concurrent:
                raise KeyboardInterrupt
            return
        self._signal = number
        if not self._executor.concurrent:
            for name in self._running:
                self._executor.stop(name)

    # -- values -------------------------------------------------------------------------------------------------

    def summary(self, state: Literal["running", "done", "failed", "stopped"]) -> RunSummary:
        steps = [step.summary(self._store) for step in self._steps.values()]
        return RunSummary.of(self._provenance, self._plan.graph.name, steps, self._config_yaml, state, self._began)

    def _keep_trace(self, step: StepState, trace: str) -> None:
        name = step.plan.step.name
        path = self._directory / f"{name}.traceback.txt"
        step.frames = last_frames(trace)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(0o600)  # a traceback may quote values
            path.write_text(trace, encoding="utf-8")
        except OSError as error:
            return self._note(name, f"the traceback could not be written: {disk_error(error)}\n{trace}")
        step.traceback = path
        return self._note(name, f"the whole traceback is in {path}")

    def _note(self, step: str, text: str) -> None:
        self._tell(lambda observer: observer.step_message(Message(step, "note", {"text": redacted(text)})))

    def _tell(self, what: Callable[[Observer], Any]) -> None:
        for observer in self._observers:
            what(observer)
