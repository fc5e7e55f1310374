"""The verbs run, plan, serve, submit, attach, ui and doctor: compose, plan, run, report, serve.

Every verb takes the overrides, the DictConfig if Hydra itself composed one (else None), and the session that holds
the cluster; it returns the exit code and raises StageError for what a person has to mend.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import submitted_job
from cluster.serve_port import expect_free
from cluster.terminal_text import say
from pipelines import config, failure, outline, plan, project, provenance, step_state, terminal, variant
from pipelines.config import Composition, Settings
from pipelines.differences import leaves
from pipelines.errors import BloomlineError, ConfigError, Problem, disk_error
from pipelines.graph import select
from pipelines.plan import Plan
from pipelines.reading_meter import reading_meter
from pipelines.redaction import redacted, shown_override
from pipelines.run_history import report_path
from pipelines.session import Session
from pipelines.store import Store
from pipelines.summary import RunSummary
from stages.base import Servable

if TYPE_CHECKING:
    from cluster.config import RemoteCluster
    from pipelines.tracking.tracker import Tracking

BLOCKED = 3  # exit code of a plan that could not be run


@dataclass(frozen=True)
class Prepared:
    """A configuration, checked and planned."""

    composition: Composition
    store: Store
    plan: Plan


def show_plan(overrides: list[str], composed: Any, session: Session) -> int:
    """`plan`: show what a run would do, and why."""
    prepared = prepare(overrides, composed, session)
    _show_plan(prepared)
    if prepared.plan.blocked:
        print("\nBlocked: nothing would be started.")
        return BLOCKED
    return 0


def run(overrides: list[str], composed: Any, session: Session) -> int:
    """`run`: run every step that is not cached. Starts nothing if a step is blocked, or if all are cached."""
    return _run(prepare(overrides, composed, session), overrides, session)


def _run(prepared: Prepared, overrides: list[str], session: Session) -> int:
    if prepared.plan.blocked:
        _show_plan(prepared)
        print("\nBlocked: nothing was started.")
        if cpus := submitted_job.reserved_cpus():
            print(f"The driver of this job reserves CPUs: {cpus:g}. With cluster.entrypoint_cpus=0 the steps get them.")
        return BLOCKED
    if not prepared.plan.to_run:
        _show_cached(prepared, overrides)
        return 0
    _expect_port(prepared)
    _show_plan(prepared)
    return execute(prepared, overrides, session)[1]


def _expect_port(prepared: Prepared) -> None:
    """Raise ClusterError if another process holds the port that was asked for. A remote cluster knows its own ports."""
    cluster = prepared.composition.settings.cluster
    if cluster.kind != "remote" and cluster.serve_port is not None:
        expect_free(cluster.serve_port)


def serve(overrides: list[str], composed: Any, session: Session) -> int:
    """`serve`: run a pipeline, then serve its deployment in the foreground until Ctrl-C."""
    prepared = prepare(overrides, composed, session)
    makes = [step for step in prepared.plan.steps.values() if issubclass(step.step.produces, Servable)]
    if not makes:
        raise BloomlineError(
            f"Pipeline {prepared.plan.graph.name} has no step that makes something to serve: add a `deploy` step."
        )
    if all(step.state == "unselected" and not step.record for step in makes):
        names = ", ".join(step.step.name for step in makes)
        raise BloomlineError(f"`from`, `until` and `only` select no step that makes something to serve: {names}.")
    _expect_port(prepared)
    if prepared.plan.blocked or prepared.plan.to_run:
        if code := _run(prepared, overrides, session):
            return code
        prepared = prepare(overrides, composed, session)
    made = [
        (step.record, step.step.produces)
        for step in prepared.plan.steps.values()
        if step.record and issubclass(step.step.produces, Servable)
    ]
    # A deployment says how its model is to be served, so it comes before models that could be served as they are.
    record, kind = next((one for one in reversed(made) if not one[1].is_model), made[-1])
    served = kind(prepared.store.open(record))
    executor = session.executor(prepared.composition.settings.cluster, prepared.composition.graph.packages())
    example = next((request for request in served.examples() if request.status < 400), None)
    return executor.serve_foreground(served.application(), example)


def submit(overrides: list[str], composed: Any, session: Session) -> int:
    """`submit`: the same run as a Ray job. The configuration is checked here first; the job plans it there."""
    from cluster.jobs import in_job
    from cluster.jobs import submit as submit_job

    composition = config.compose(overrides) if composed is None else config.check(composed)
    cluster = remote_cluster("submit", composition.settings)
    _expect_no_secrets(in_job(overrides))
    directory = project.find(Path.cwd()).directory
    store = composition.settings.store
    stores = [store.state, *([store.local_root] if store.is_local else [])]
    return submit_job(
        cluster,
        overrides,
        packages=composition.graph.packages(),
        directory=directory,
        stores=stores,
        submitter=provenance.submitter(composition.graph.name),
    )


def _expect_no_secrets(overrides: list[str]) -> None:
    """Raise ConfigError for an override with a secret: whoever sees the dashboard of a cluster sees a job's command."""
    if problems := [
        Problem(
            override.partition("=")[0].lstrip("+"),
            "a secret, which everybody who sees the cluster's dashboard could read",
            "a reference to the environment of the cluster",
            "Set a variable there, and give the value as '${oc.env:NAME}'.",
        )
        for override in overrides
        if shown_override(override) != override
    ]:
        raise ConfigError(problems)


def attach(words: list[str], overrides: list[str], composed: Any, session: Session) -> int:
    """`attach`: follow a job that was submitted before."""
    from cluster.jobs import attach as attach_to_job

    if len(words) != 1:
        raise BloomlineError("attach needs the ID of one job, as `submit` printed it: bloomline-DATE-TIME-...")
    return attach_to_job(remote_cluster("attach", outline.compose(overrides, composed).settings), words[0])


def remote_cluster(verb: str, settings: Settings) -> RemoteCluster:
    """The configured cluster. Raises BloomlineError if it is not a remote one."""
    from cluster.config import RemoteCluster

    cluster = settings.cluster
    if not isinstance(cluster, RemoteCluster):
        raise BloomlineError(
            f"{verb} needs the address of a cluster: add cluster=remote cluster.address=http://HOST:8265"
        )
    return cluster


def ui(overrides: list[str], composed: Any, session: Session) -> int:
    """`ui`: the live page and the MLflow UI on this configuration's store, on loopback, until Ctrl-C."""
    from cluster.extras import missing_extra
    from pipelines.live.server import serving
    from pipelines.tracking.ui import serve_ui, until_stopped

    settings = outline.compose(overrides, composed).settings
    # Flushed, because a program that reads the address from a pipe would otherwise wait until the end.
    tell = partial(say, flush=True)
    # A person looks at the page: they are to see at once that the store is away, and it is asked again soon.
    store = Store(settings.store.model_copy(update={"retry_s": 0.0}))
    if settings.port is not None:
        expect_free(settings.port)
    with until_stopped(), serving(store, settings.port or 0) as address:
        tell(f"Runs: {address}  (Ctrl-C ends it)")
        try:
            code = serve_ui(settings.tracking, settings.store.state, say=tell)
            if settings.tracking.kind == "local":
                return code
        except BloomlineError as error:
            tell(f"MLflow is not shown: {redacted(str(error))}")
        except ModuleNotFoundError as error:
            if not (refusal := missing_extra(error)):
                raise
            tell(f"MLflow is not shown: {refusal}")
        threading.Event().wait()
    return 0


def doctor(overrides: list[str], composed: Any, session: Session) -> int:
    """`doctor`: check the installation, and the cluster, the store and the tracking of this configuration."""
    from pipelines.doctor.examination import examine

    return examine(outline.compose(overrides, composed).settings)


def prepare(overrides: list[str], composed: Any, session: Session) -> Prepared:
    """Compose, check and plan. Raises ConfigError or BloomlineError."""
    composition = config.compose(overrides) if composed is None else config.check(composed)
    settings = composition.settings
    store = Store(settings.store)
    selected = select(composition.graph, settings.from_, settings.until, settings.only)
    if unselected := [name for name in settings.force if name not in selected]:
        expected = "a step that `from`, `until` and `only` select"
        raise ConfigError(
            Problem("force", repr(name), expected, f"Selected: {', '.join(sorted(selected))}.") for name in unselected
        )
    packages = composition.graph.packages()
    with reading_meter() as store.digests.watch, _said_of_text(composition):
        made = plan.make(
            composition.graph, store, selected, settings.force, lambda: session.nodes(settings.cluster, packages)
        )
    store.digests.watch = None
    if made.to_run:
        store.expect_writable()
    return Prepared(composition, store, made)


@contextmanager
def _said_of_text(composition: Composition) -> Iterator[None]:
    """Within, what is wrong with the paths that `text` stands for is said of `text`, which is what the user wrote."""
    try:
        yield
    except BloomlineError as error:
        text = composition.values.get("text")
        for key, value in leaves(composition.values["steps"], "steps."):
            config, _, field = key.rpartition(".")
            before = f"{config}: {config.rpartition('.')[2]}.{field}: "
            if text and value == text and str(error).startswith(before):
                raise BloomlineError(f"text: {str(error).removeprefix(before)}") from error
        raise


def execute(prepared: Prepared, overrides: list[str], session: Session) -> tuple[str, int]:
    """Run a plan that is not blocked, and show how it goes. The id of the run, and its exit code."""
    from pipelines.logs import kept_log
    from pipelines.logs.collector import Collector
    from pipelines.observer import Observer
    from pipelines.run_history import History
    from pipelines.runner import Runner
    from pipelines.tracking.tracker import Tracking

    settings, store = prepared.composition.settings, prepared.store
    made_by = provenance.collect("run", overrides, variant.of(prepared.composition, overrides))
    out = terminal.console()
    display = terminal.Display(out)
    tracked = partial(display.notice, "tracking")
    store.tell(partial(display.notice, "store"))
    tracking = Tracking.open(settings.tracking, store.config.state, made_by.run_id, say=tracked)
    logs = Collector(settings.logs, store, made_by.run_id)  # before the history, which says that the run has ended
    history = History(store)
    state = "failed"
    try:
        packages = prepared.composition.graph.packages()
        executor = session.executor(settings.cluster, packages, spawns=prepared.plan.spawns)
        observers: list[Observer] = [tracking, logs, history, display]
        runner = Runner(prepared.plan, store, executor, made_by, prepared.composition.yaml(), observers)
        summary = kept_log.noting_silence(runner.run(), store)
        state = summary.state
        report, unwritten = write_report(summary, store, tracking)
    finally:
        display.close()
        logs.close()
        history.close()
        notes = tracking.close(state)
    shown = replace(summary, notes=tuple(map(redacted, (*summary.notes, *unwritten, *logs.notes(), *notes))))
    terminal.show_result(out, shown, report, _next_commands(shown, overrides))
    return summary.run_id, runner.exit_code


def write_report(summary: RunSummary, store: Store, tracking: Tracking) -> tuple[Path | None, list[str]]:
    """Write the report and attach it to the run in MLflow. Returns its path, or notes that say why there is none.

    Where the store is not this directory, it gets a copy for those who look at the run from another machine.
    """
    from pipelines import run_history
    from pipelines.report.page import write

    notes = []
    shown = replace(summary, tracking_url=tracking.url)
    place = report_path(summary.run_id)
    try:
        report = write(shown, store.config.state / place, store.uri_of_root, run_history.before(store, summary))
    except OSError as error:
        return None, [f"There is no report: {disk_error(error)}"]
    except Exception as error:  # a fault in drawing a page must not end a run whose steps are done
        return None, [f"There is no report: {type(error).__name__} while it was drawn: {redacted(str(error))}"]
    if not store.config.is_local or store.config.state != store.config.local_root:
        try:
            store.files.write(place, report.read_bytes())
        except OSError as error:
            notes.append(f"The report is not in the store: {disk_error(error)}")
    tracking.attach(report)
    return report, notes


def _show_plan(prepared: Prepared) -> None:
    rows = [
        terminal.PlanRow(
            name=step.step.name,
            stage=step.step.stage_name,
            state=step.state,
            reason="; ".join(part for part in (step.explanation, step.fit) if part),
            where=prepared.store.uri(step.record) if step.record else "",
        )
        for step in prepared.plan.steps.values()
    ]
    terminal.show_plan(terminal.console(), rows)


def _show_cached(prepared: Prepared, overrides: list[str]) -> None:
    """Show the cached results as after a run, without starting anything."""
    from pipelines.tracking import leftovers

    store = prepared.store
    steps = tuple(step_state.cached(step, store) for step in prepared.plan.steps.values() if step.state == "cached")
    runs = [step.record for step in prepared.plan.steps.values() if step.record and step.state == "cached"]
    last = max(runs, key=lambda record: record.created, default=None)
    report = store.config.state / "runs" / last.run_id / "report.html" if last else None
    waiting = leftovers.resume(prepared.composition.settings.tracking, store.config.state)
    summary = RunSummary(
        run_id=last.run_id if last else "",
        pipeline=prepared.plan.graph.name,
        command=provenance.command("run", overrides),
        started=time.time(),
        seconds=0.0,
        state="done",
        steps=steps,
        config_yaml="",
        git_commit=None,
        git_dirty=False,
        versions={},
        notes=("Everything is cached: nothing was started.", *map(redacted, waiting)),
    )
    found = report if report and report.exists() else None
    terminal.show_result(terminal.console(), summary, found, _next_commands(summary, overrides))


def _next_commands(run: RunSummary, overrides: list[str]) -> list[str]:
    """Useful commands after a run, about the steps that it selected; after a run that failed or was stopped, the last
    command resumes it. In a submitted job, the first command says how to get the report, which is elsewhere."""
    where = provenance.places(overrides)
    shown = [provenance.command("runs", ["show", run.run_id, *where])] if submitted_job.in_submitted_job() else []
    if run.state != "done":
        failed = [step for step in run.steps if step.state == "failed" and step.name not in run.silent]
        logs = [failure.logs_command(run, step) for step in failed][:1]
        return [*shown, *logs, provenance.command("ui", where), provenance.command("run", overrides)]
    kept = [override for override in overrides if override.split("=", 1)[0] != "force"]
    used = [step for step in run.steps if step.state in ("done", "cached")]
    trained = next((step.name for step in used if step.stage == "pretrain"), None)
    served = any(step.stage == "deploy" for step in used)
    rate = f"steps.{trained}.learning_rate"
    others = [override for override in kept if override.lstrip("+").partition("=")[0] != rate]
    changed = [*others, f"{rate}={'5e-4' if f'{rate}=1e-3' in kept else '1e-3'}"] if trained else kept
    return [
        *shown,
        provenance.command("serve", kept) if served else provenance.command("artifacts", ["list", *where]),
        provenance.command("plan", changed),
        provenance.command("ui", where),
    ]
