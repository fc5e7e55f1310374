"""What changed since the run before: the values of the configuration, and what that did to the results."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from pipelines import provenance, run_history
from pipelines.differences import differences, results, shown
from pipelines.report.html import section
from pipelines.report.paths import Shorten
from pipelines.run_record import RunRecord
from pipelines.summary import RunSummary

MOST_ROWS = 20


def comparison(run: RunSummary, before: RunRecord | None, shorten: Shorten) -> Markup:
    """A section with two tables, values and results; nothing without a run before."""
    if before is None:
        return Markup("")
    now = run_history.record_of(run, {step.name: step for step in run.steps}, {})
    changed = [(key, shorten(shown(one)), shorten(shown(other))) for key, one, other in differences(before, now)]
    outcome = [(f"{step}: {label}", one, other, change) for step, label, one, other, change in results(before, now)]
    parts = [
        Markup(
            "<p>With run <code>{}</code> ({}), the latest finished run of this pipeline before this one.</p>"
        ).format(before.run_id, before.name or before.pipeline),
        _table("Changed", changed[:MOST_ROWS])
        if changed
        else Markup("<p>The configuration, the commit and the versions are the same.</p>"),
        Markup("<p>{} more values differ.</p>").format(len(changed) - MOST_ROWS) if len(changed) > MOST_ROWS else "",
        _table("Result", outcome, "Change") if outcome else Markup("<p>The results are the same.</p>"),
        Markup("<p>All differences: <code>{}</code></p>").format(
            provenance.command("runs", ["diff", before.run_id, run.run_id, *run.places])
        ),
    ]
    return section("before", "Compared with the run before", Markup("\n").join(part for part in parts if part))


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
