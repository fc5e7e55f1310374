"""`bloomline runs`: the runs that the store remembers, without MLflow.

bloomline runs list [PIPELINE] [sweep=ID] [limit=20]
bloomline runs show RUN          its values, steps, metrics and artifacts
bloomline runs diff RUN RUN      what differs in their values, their metrics side by side, their artifacts
bloomline runs delete RUN ...    forget it: its record, report, figures and curves; artifacts stay

RUN is an id, the beginning or the end of one, or `latest`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from cluster.terminal_text import clean, say
from pipelines import config, provenance, run_history, terminal
from pipelines.differences import differences
from pipelines.errors import BloomlineError, nearest
from pipelines.formatting import duration, metric, number, size
from pipelines.run_history import RunRecord, StepResult
from pipelines.session import Session
from pipelines.store import Store
from pipelines.table import Cell, Column, draw
from pipelines.terminal import COLOURS
from stages.base import VERDICT

WORDS = ("list", "show", "diff", "delete")
OWN = ("sweep", "limit")  # what looks like an override and is ours
LIMIT = 20


def command(words: Sequence[str], overrides: list[str], composed: Any, session: Session) -> int:
    """`bloomline runs WORD [NAME ...] [OVERRIDE ...]`."""
    word, *names = words or ["list"]
    if word not in WORDS:
        raise BloomlineError(f"runs: unknown word {word!r}; expected {', '.join(WORDS)}. {nearest(word, WORDS)}")
    own = {key: value for key, _, value in (override.partition("=") for override in overrides) if key in OWN}
    overrides = [override for override in overrides if override.partition("=")[0] not in OWN]
    settings = (config.compose(overrides) if composed is None else config.check(composed)).settings
    store = Store(settings.store)
    if word == "list":
        return show_list(store, names, own)
    actions: dict[str, Callable[[Store, Sequence[str]], int]] = {"show": show, "diff": diff, "delete": delete}
    return actions[word](store, names)


def show_list(store: Store, pipelines: Sequence[str], own: dict[str, str]) -> int:
    """List the runs, the latest first."""
    limit = own.get("limit", str(LIMIT))
    if not limit.isdigit():
        raise BloomlineError(f"runs list: limit={limit}; expected a whole number.")
    sweep = own.get("sweep")
    remembered, damaged = run_history.records(store)
    if damaged:
        say(run_history.damage(damaged), file=sys.stderr)
    found = [
        run
        for run in remembered
        if (not pipelines or run.pipeline in pipelines) and (sweep is None or (run.sweep or "").endswith(sweep))
    ]
    if not found:
        print(f"There are no runs in {store.uri_of_root}.")
        return 0
    shown = found[: int(limit)]
    titles = ("Run", "Name", "State", "Time", "Result", "User", "Sweep")
    columns = [
        Column(title, flexible=title in ("Name", "Result"), fold=True, right=title == "Time", optional=title == "Sweep")
        for title in titles
    ]
    rows = [
        [
            Cell(run.run_id),
            Cell(clean(run.name)),
            Cell(run.state, COLOURS.get(run.state, "dim")),
            Cell(duration(run.seconds)),
            Cell(clean(result(run))),
            Cell(clean(run.user)),
            Cell((run.sweep or "")[-4:]),
        ]
        for run in shown
    ]
    draw(terminal.console(), columns, rows)
    if len(found) > len(shown):
        print(f"{len(found) - len(shown)} more: add limit={len(found)}.")
    return 0


def show(store: Store, names: Sequence[str]) -> int:
    """Print what the store remembers of one run."""
    if len(names) != 1:
        raise BloomlineError("runs show: expected one run. `bloomline runs` lists them.")
    run = run_history.find(store, names[0])
    print(f"{run.run_id}: {clean(run.name)}, {run.state} after {duration(run.seconds)}")
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started))
    print(f"  began    {began} by {run.user or 'somebody'}")
    if run.sweep:
        print(f"  sweep    {run.sweep}")
    dirty = " with uncommitted changes" if run.git_dirty else ""
    print(f"  commit   {run.git_commit + dirty if run.git_commit else 'not in a git checkout'}")
    print(f"  command  {clean(run.command)}")
    report = store.config.state / "runs" / run.run_id / "report.html"
    if report.exists():
        print(f"  report   {report}")
    for key, value in run.parameters.items():
        print(clean(f"  {key} = {value}"))
    for step in run.steps:
        print(clean(f"{step.name}: {_of_step(step)}"))
        for name, found in step.metrics.items():
            print(clean(f"  {name:<32}  {metric(name, found)}"))
        if step.artifact:
            print(clean(f"  {step.artifact_type}, {size(step.size_bytes or 0)}, {step.artifact}"))
    return 0


def diff(store: Store, names: Sequence[str]) -> int:
    """Print how two runs differ. Exit code 0, whether they do or not."""
    if len(names) != 2:
        raise BloomlineError("runs diff: expected two runs. `bloomline runs` lists them.")
    one, two = (run_history.find(store, name) for name in names)
    out = terminal.console()
    heads = (one.run_id, two.run_id)
    values = [(key, _shown(first), _shown(second)) for key, first, second in differences(one, two)]
    _side_by_side(out, "Value", heads, values, "Their values are the same.")
    if one.git_commit != two.git_commit:
        print(f"\nCommits: {one.git_commit or 'none'} and {two.git_commit or 'none'}")
    print()
    metrics = []
    for step_name, step, other in _pairs(one, two):
        for name in dict.fromkeys([*(step.metrics if step else ()), *(other.metrics if other else ())]):
            found = [side.metrics.get(name) if side else None for side in (step, other)]
            if found[0] != found[1]:
                texts = ["" if value is None else metric(name, value) for value in found]
                metrics.append((f"{step_name}.{name}", texts[0], texts[1]))
    _side_by_side(out, "Metric", heads, metrics, "Their metrics are the same.")
    print()
    artifacts = [
        (name, step.fingerprint[:12], other.fingerprint[:12])
        for name, step, other in _pairs(one, two)
        if step and other and step.artifact and other.artifact and step.fingerprint != other.fingerprint
    ]
    _side_by_side(out, "Artifact", heads, artifacts, "Their artifacts are the same.")
    return 0


def delete(store: Store, names: Sequence[str]) -> int:
    """Remove what the store remembers of runs. Their artifacts stay: `artifacts gc` removes those."""
    if not names:
        raise BloomlineError("runs delete: expected the ids of runs. `bloomline runs` lists them.")
    for run in [run_history.find(store, name) for name in names]:
        if run.state == "running":
            raise BloomlineError(f"Run {run.run_id} is running. Stop it first.")
        if (store.config.state / "runs" / run.run_id / "spool" / "operations.jsonl").exists():
            command = provenance.command("ui", [])
            raise BloomlineError(f"MLflow has not received all of run {run.run_id}. `{command}` sends the rest.")
        run_history.delete(store, run)
        print(f"deleted {run.run_id}: {clean(run.name)}")
    return 0


def result(run: RunRecord) -> str:
    """What failed, or the headline of the step that judges the result, or else that of the last step."""
    if failed := [step for step in run.steps if step.error]:
        return f"{failed[0].name}: {(failed[0].error or '').splitlines()[0]}"
    shown = [step for step in run.steps if step.headline]
    leading = [step for step in shown if VERDICT in step.highlights] or shown
    if not leading or not (headline := leading[-1].headline):
        return ""
    name, value = headline
    return f"{leading[-1].name} {name.replace('_', ' ')} {metric(name, value)}"


def _of_step(step: StepResult) -> str:
    parts = [step.state, duration(step.seconds) if step.seconds is not None and step.state != "cached" else ""]
    parts.append(step.error or step.reason)
    return "  ".join(part for part in parts if part)


def _pairs(one: RunRecord, two: RunRecord) -> list[tuple[str, StepResult | None, StepResult | None]]:
    """The steps of two runs, by name."""
    first, second = ({step.name: step for step in run.steps} for run in (one, two))
    return [(name, first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])]


def _side_by_side(
    out: Any, title: str, heads: tuple[str, str], rows: Sequence[tuple[str, str, str]], none: str
) -> None:
    if not rows:
        print(none)
        return
    columns = [Column(title), *(Column(head, flexible=True, fold=True) for head in heads)]
    draw(out, columns, [[Cell(clean(text)) for text in row] for row in rows])


def _shown(value: Any) -> str:
    if value is None:
        return "(none)"
    return number(value) if isinstance(value, float) else str(value)
