"""What changed since the run before: the values of the configuration, and what that did to the results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from pipelines import provenance, run_history
from pipelines.differences import differences
from pipelines.formatting import quantity
from pipelines.report.html import section
from pipelines.report.paths import Shorten
from pipelines.run_history import RunRecord
from pipelines.summary import RunSummary

MOST_ROWS = 20
LONGEST_VALUE = 160  # characters


def comparison(run: RunSummary, before: RunRecord | None, shorten: Shorten) -> Markup:
    """A section with two tables, values and results; nothing without a run before."""
    if before is None:
        return Markup("")
    now = run_history.record_of(run, {step.name: step for step in run.steps}, {})
    changed = [(key, _value(one, shorten), _value(other, shorten)) for key, one, other in differences(before, now)]
    if before.git_commit != now.git_commit:
        changed.append(("commit", (before.git_commit or "none")[:12], (now.git_commit or "none")[:12]))
    changed += [
        (f"version of {name}", before.versions.get(name, "none"), version)
        for name, version in now.versions.items()
        if before.versions.get(name) != version
    ]
    results = list(_results(before, now))
    parts = [
        Markup(
            "<p>With run <code>{}</code> ({}), the latest finished run of this pipeline before this one.</p>"
        ).format(before.run_id, before.name or before.pipeline),
        _table("Changed", changed[:MOST_ROWS])
        if changed
        else Markup("<p>The configuration, the commit and the versions are the same.</p>"),
        Markup("<p>{} more values differ.</p>").format(len(changed) - MOST_ROWS) if len(changed) > MOST_ROWS else "",
        _table("Result", results, "Change") if results else Markup("<p>The results are the same.</p>"),
        Markup("<p>All differences: <code>{}</code></p>").format(
            provenance.command("runs", ["diff", before.run_id, run.run_id, *run.places])
        ),
    ]
    return section("before", "Compared with the run before", Markup("\n").join(part for part in parts if part))


def _results(before: RunRecord, now: RunRecord) -> Iterable[tuple[str, str, str, str]]:
    """The headlines of the steps that both runs have, where they differ."""
    earlier = before.headlines()
    for name, value in now.headlines().items():
        if name in earlier and earlier[name] != value:
            step, _, metric = name.partition(".")
            label, shown = quantity(metric, value)
            change = _change(earlier[name], value)
            yield f"{step}: {label}", quantity(metric, earlier[name])[1], shown, change


def _change(before: float, now: float) -> str:
    """In percent, where a ratio has a meaning."""
    if before <= 0 or now <= 0:
        return ""
    change = now / before - 1
    return f"{change:+.1%}" if abs(change) >= 0.01 else f"{change:+.2%}"


def _value(value: Any, shorten: Shorten) -> str:
    if value is None:
        return "none"
    text = shorten(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def _table(title: str, rows: Sequence[tuple[str, ...]], *more: str) -> Markup:
    heads = Markup("").join(Markup('<th scope="col">{}</th>').format(head) for head in (title, "Before", "Now", *more))
    body = Markup("\n").join(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            row[0], Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row[1:])
        )
        for row in rows
    )
    return Markup(
        '<div class="scroll"><table class="compared"><thead><tr>{}</tr></thead><tbody>\n{}\n</tbody></table></div>'
    ).format(heads, body)
