"""`bloomline runs`: the runs that the store remembers, without MLflow.

bloomline runs list [PIPELINE] [sweep=ID] [limit=20]
bloomline runs show RUN          its values, steps, metrics and artifacts
bloomline runs diff RUN RUN      what differs in their configuration, and what that did to their headlines
              with `all=true`    and every other metric and artifact that differs
bloomline runs delete RUN ...    forget it: its record, report, figures and curves; artifacts stay

RUN is an id, the beginning or the end of one, or `latest`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cluster.terminal_text import clean, say
from pipelines import outline, own_keys, provenance, run_history, terminal
from pipelines.differences import differences, pairs, results, shown
from pipelines.errors import BloomlineError, nearest
from pipelines.formatting import duration, metric, size
from pipelines.run_record import RunRecord, StepResult
from pipelines.session import Session
from pipelines.store import Store
from pipelines.table import Cell, Column, draw
from pipelines.terminal import COLOURS
from stages.base import VERDICT

WORDS = ("list", "show", "diff", "delete")
LIMIT = 20
MOST_SWEEPS = 5  # the latest, which are named where there are no runs of the sweep in question
MOST_VALUES = 20  # of a configuration that `diff` shows without `all=true`


def command(words: Sequence[str], overrides: list[str], composed: Any, session: Session) -> int:
    """`bloomline runs WORD [NAME ...] [OVERRIDE ...]`."""
    word, *names = words or ["list"]
    if word not in WORDS:
        raise BloomlineError(f"runs: unknown word {word!r}; expected {', '.join(WORDS)}. {nearest(word, WORDS)}")
    own, overrides = own_keys.split("runs", overrides)
    settings = outline.compose(overrides, composed).settings
    store = Store(settings.store)
    if word == "list":
        return show_list(store, names, own)
    if word == "diff":
        return diff(store, names, own)
    actions: dict[str, Callable[[Store, Sequence[str]], int]] = {"show": show, "delete": delete}
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
        store.expect_bucket()
        print(clean(_none(store, remembered, pipelines, sweep)))
        return 0
    shown = found[: int(limit)]
    out = terminal.console()
    narrow = out.width < terminal.WIDE
    columns = [
        Column("Run"),
        Column("Name", most=60, flexible=True, least=20, fold=True),
        Column("State"),
        Column("Time", right=True),
        Column("Result", most=60, flexible=True, least=12, fold=True),
        Column("User", optional=narrow),
        Column("Sweep", optional=narrow or not any(run.sweep for run in shown)),
    ]
    rows = [
        [
            Cell(run.run_id),
            Cell(clean(run.name), lines=3),
            Cell(run.state, COLOURS.get(run.state, "dim")),
            Cell(duration(run.seconds)),
            Cell(clean(result(run)), lines=1 if _failed(run) else None),  # `runs show` has the whole error
            Cell(clean(run.user)),
            Cell((run.sweep or "")[-4:]),
        ]
        for run in shown
    ]
    terminal.say_left_out(out, draw(out, columns, rows))
    if len(found) > len(shown):
        print(f"{len(found) - len(shown)} more: add limit={len(found)}.")
    return 0


def _none(store: Store, remembered: Sequence[RunRecord], pipelines: Sequence[str], sweep: str | None) -> str:
    """What is said where no run was found: whether there are others, and of what."""
    if not remembered:
        return f"There are no runs in {store.uri_of_root}."
    of = [f"of a pipeline {' or '.join(pipelines)}"] if pipelines else []
    of += [f"of a sweep {sweep}"] if sweep is not None else []
    known = {
        "Pipelines": sorted({run.pipeline for run in remembered}) if pipelines else [],
        "Sweeps": list(dict.fromkeys(run.sweep for run in remembered if run.sweep))[:MOST_SWEEPS] if sweep else [],
    }
    others = "".join(f" {title}: {', '.join(names)}." for title, names in known.items() if names)
    count, where = len(remembered), f"in {store.uri_of_root}"
    which = f"None of the {count} runs {where} is" if count > 1 else f"The only run {where} is not"
    return f"{which} {' and '.join(of)}.{others}"


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
    if report := _report(store, run):
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


def _report(store: Store, run: RunRecord) -> str:
    """Where the report of a run is: in a directory of this machine, or else in the store; "" if there is none."""
    place = run_history.report_path(run.run_id)
    local = store.config.state / place
    if local.exists():
        return str(local)
    return store.files.uri(place) if place.rpartition("/")[2] in store.files.tokens(f"runs/{run.run_id}") else ""


def diff(store: Store, names: Sequence[str], own: Mapping[str, str]) -> int:
    """Print how two runs differ. Exit code 0, whether they do or not.

    `own`: with `all` "true", every metric and artifact too; without, how many of them differ.
    """
    if len(names) != 2:
        raise BloomlineError("runs diff: expected two runs. `bloomline runs` lists them.")
    if (everything := own.get("all", "false")) not in ("true", "false"):
        raise BloomlineError(f"runs diff: all={everything}; expected true or false.")
    one, two = (run_history.find(store, name) for name in names)
    out = terminal.console()
    for letter, run in (("A", one), ("B", two)):
        print(clean(f"{letter}  {run.run_id}  {run.state} after {duration(run.seconds)}  {run.name}"))
    values = [(key, shown(first), shown(second)) for key, first, second in differences(one, two)]
    found = [(f"{step}: {label}", *rest) for step, label, *rest in results(one, two)]
    metrics, artifacts = _other_metrics(one, two), _artifacts(one, two)
    print()
    kept = values if everything == "true" else values[:MOST_VALUES]
    but = " Their artifacts differ by the files that they read, or by code that is not committed." if artifacts else ""
    same = f"Their configuration, commit and versions are the same.{but}"
    _side_by_side(out, ("Configuration", "A", "B"), kept, same)
    print()
    _side_by_side(out, ("Result", "A", "B", "Change"), found, "Their headlines are the same.")
    if everything == "true":
        print()
        _side_by_side(out, ("Other metric", "A", "B"), metrics, "Their other metrics are the same.")
        print()
        made = all(any(step.artifact for step in run.steps) for run in (one, two))
        _side_by_side(
            out, ("Artifact", "A", "B"), artifacts,
            "Their artifacts are the same." if made else "No step of both made an artifact.",
        )  # fmt: skip
    elif len(values) > len(kept) or metrics or artifacts:
        parts = [(len(values) - len(kept), "value"), (len(metrics), "metric"), (len(artifacts), "artifact")]
        counted = ", ".join(f"{count} {what}{'s' if count > 1 else ''}" for count, what in parts if count)
        print(f"\nAlso different: {counted}. `all=true` shows them.")
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
    if failed := _failed(run):
        return f"{failed[0].name}: {(failed[0].error or '').splitlines()[0]}"
    shown = [step for step in run.steps if step.headline]
    leading = [step for step in shown if VERDICT in step.highlights] or shown
    if not leading or not (headline := leading[-1].headline):
        return ""
    name, value = headline
    return f"{leading[-1].name} {name.replace('_', ' ')} {metric(name, value)}"


def _failed(run: RunRecord) -> list[StepResult]:
    return [step for step in run.steps if step.error]


def _of_step(step: StepResult) -> str:
    parts = [step.state, duration(step.seconds) if step.seconds is not None and step.state != "cached" else ""]
    parts.append(step.error or step.reason)
    return "  ".join(part for part in parts if part)


def _other_metrics(one: RunRecord, two: RunRecord) -> list[tuple[str, str, str]]:
    """The metrics in which two runs differ, but for the headlines, by `step: metric`."""
    found = []
    for step_name, *sides in pairs(one, two):
        headlines = {side.headline[0] for side in sides if side and side.headline}
        for name in dict.fromkeys(name for side in sides if side for name in side.metrics):
            values = [side.metrics.get(name) if side else None for side in sides]
            if name not in headlines and values[0] != values[1]:
                texts = ["none" if value is None else metric(name, value) for value in values]
                found.append((f"{step_name}: {name}", texts[0], texts[1]))
    return found


def _artifacts(one: RunRecord, two: RunRecord) -> list[tuple[str, str, str]]:
    """The artifacts of the steps that both runs selected, by their fingerprints, where these differ."""
    return [
        (name, step.fingerprint[:12], other.fingerprint[:12])
        for name, step, other in pairs(one, two)
        if step and other and step.fingerprint != other.fingerprint
        if all(side.artifact and side.state != "unselected" for side in (step, other))
    ]


def _side_by_side(out: Any, titles: Sequence[str], rows: Sequence[Sequence[str]], none: str) -> None:
    if not rows:
        print(none)
        return
    columns = [Column(titles[0]), *(Column(title, flexible=True, fold=True) for title in titles[1:])]
    draw(out, columns, [[Cell(clean(text)) for text in row] for row in rows])
