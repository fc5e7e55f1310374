"""The pieces of the live page as HTML: the list of runs, and of one run its graph, curves and logs.

All text is escaped. Each piece is bounded, whatever the store holds: the list by `MOST_RUNS`, the curves of a step by
`MOST_CURVES` and `POINTS`, a log by `TAIL_BYTES`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from markupsafe import Markup

from cluster.terminal_text import clean_line
from pipelines.curves import Curve
from pipelines.formatting import counts_bytes, duration, metric, number, quantity, size, size_unit
from pipelines.logs.kept_log import KeptLog
from pipelines.metric_groups import group_of, grouped, leading
from pipelines.report import plots
from pipelines.report.graph_drawing import graph_svg
from pipelines.report.html import WORDS, badge, facts, section
from pipelines.run_record import RunRecord, StepResult
from pipelines.summary import StepSummary

MOST_RUNS = 200  # rows
MOST_CURVES = 40
MOST_METRICS = 200
MOST_PROCESSES = 256
POINTS = 300  # of a drawn curve
TAIL_BYTES = 1 << 16  # of a log
LONGEST_TEXT = 2000  # characters of an error
LARGEST, SMALLEST = 1e300, 1e-300  # of the values that are drawn: an axis divides and takes logarithms


@dataclass(frozen=True)
class Row:
    """A run in the list."""

    run_id: str
    name: str
    state: str
    started: float  # seconds since the epoch
    seconds: float
    steps: str  # how many of them are done
    result: str


def row_of(run: RunRecord, result: str) -> Row:
    """The row of a run. `result`: its last headline, or what failed."""
    done = sum(step.state in ("done", "cached") for step in run.steps)
    wanted = sum(step.state != "unselected" for step in run.steps)
    steps = f"{done} of {wanted}"
    return Row(run.run_id, run.name or run.pipeline, run.state, run.started, run.seconds, steps, result[:LONGEST_TEXT])


def address(run_id: str, step: str = "", process: str = "") -> str:
    """Where a run is shown, or a step of it, or the log of one of the step's processes."""
    wanted = {"run": run_id, "step": step, "process": process}
    return "/?" + urlencode({name: value for name, value in wanted.items() if value}, errors="replace")


# -- the list -----------------------------------------------------------------------------------------------------


def run_list(rows: Iterable[Row], older: int) -> Markup:
    """The runs, those in progress first, then the latest first. `older`: how many more the store has."""
    ordered = sorted(rows, key=lambda row: (row.state != "running", -row.started))
    if not ordered:
        return Markup('<p class="empty">There are no runs in this store so far.</p>')
    running = sum(row.state == "running" for row in ordered)
    older += max(len(ordered) - MOST_RUNS, 0)
    more = Markup('<p class="empty">{} older runs: <code>bloomline runs</code> lists them.</p>').format(older)
    return Markup('<p class="counts">{} in progress, {} ended</p>{}{}').format(
        running, len(ordered) - running, _table(ordered[:MOST_RUNS]), more if older else ""
    )


def _table(rows: Sequence[Row]) -> Markup:
    body = Markup("\n").join(
        Markup(
            '<tr><th scope="row"><a href="{}">{}</a><span class="id">{}</span></th><td>{}</td><td class="n">{}</td>'
            '<td class="n">{}</td><td class="why">{}</td><td>{}</td></tr>'
        ).format(
            address(row.run_id),
            clean_line(row.name),
            row.run_id,
            badge(row.state),
            row.steps,
            duration(row.seconds),
            clean_line(row.result),
            Markup('<a href="/report?{}">report</a>').format(urlencode({"run": row.run_id}))
            if row.state not in ("running", "killed")
            else "",
        )
        for row in rows
    )
    heads = Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(Markup(' class="n"') if head in ("Steps", "Time") else "", head)
        for head in ("Run", "State", "Steps", "Time", "Result", "")
    )
    return Markup('<table class="runs"><thead><tr>{}</tr></thead><tbody>\n{}\n</tbody></table>').format(heads, body)


# -- one run ------------------------------------------------------------------------------------------------------


def head(run: RunRecord) -> Markup:
    """The name, state and facts of a run, and what is wrong with it."""
    values: dict[str, object] = {
        "Began": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started)),
        "Took" if run.state != "running" else "Runs for": duration(run.seconds),
        "Run": run.run_id,
        "Command": clean_line(run.command),
    }
    failed = [step for step in run.steps if step.error]
    report = Markup('<p><a href="/report?{}">Report</a></p>').format(urlencode({"run": run.run_id}))
    notes = [f"{step.name}: {(step.error or '')[:LONGEST_TEXT]}" for step in failed]
    if run.state == "killed":
        notes.insert(0, "The process of this run has ended without a word. The same command continues the run.")
    noted = Markup("").join(Markup("<p>{}</p>").format(note) for note in notes)
    return Markup("<header><h1>{} {}</h1>{}{}</header>{}").format(
        clean_line(run.name or run.pipeline),
        badge(run.state),
        facts(values),
        report if run.state not in ("running", "killed") else "",
        Markup('<aside class="notes" aria-label="Notes">{}</aside>').format(noted) if notes else "",
    )


def graph(run: RunRecord) -> Markup:
    """The graph of a run's steps, each with its state; a click on one shows it."""
    drawn = graph_svg([_summary(run, step) for step in run.steps], lambda name: address(run.run_id, name))
    return section("graph", "Graph", Markup('<div class="scroll">{}</div>').format(Markup(drawn)))


def shown_state(run: RunRecord, step: StepResult) -> str:
    """The state of a step. In a run without a driver nothing runs and nothing waits."""
    if run.state == "killed" and step.state in ("running", "waiting"):
        return "stopped"
    return step.state if step.state in WORDS else "waiting"


def _summary(run: RunRecord, step: StepResult) -> StepSummary:
    return StepSummary(
        name=clean_line(step.name),
        stage=clean_line(step.stage),
        state=shown_state(run, step),  # type: ignore[arg-type]  # it is one of the known words
        reason=clean_line(step.reason),
        inputs=tuple(map(clean_line, step.inputs)),
        fingerprint=step.fingerprint,
        config={},
        seconds=step.seconds,
        headline=step.headline,
    )


# -- one step -----------------------------------------------------------------------------------------------------


def step_head(run: RunRecord, step: StepResult) -> Markup:
    """The state, progress and last metrics of a step."""
    rows: dict[str, object] = {"State": badge(shown_state(run, step))}
    if step.seconds is not None and step.state != "cached":
        rows["Time"] = duration(step.seconds)
    if step.progress and run.state == "running":
        done, total, unit = step.progress
        share = f" ({done / total:.0%})" if 0 <= done <= total and total > 0 else ""
        rows["Progress"] = clean_line(f"{number(done)} of {number(total)} {unit}{share}")
    if step.reason:
        rows["Why"] = clean_line(step.reason)
    if step.artifact:
        rows["Artifact"] = clean_line(step.artifact)
    heading = Markup('<h2>{} <span class="stage">{}</span></h2>').format(clean_line(step.name), clean_line(step.stage))
    return heading + facts(rows) + _metrics(step)


def _metrics(step: StepResult) -> Markup:
    """The metrics that matter most, then the others in the groups of `metric_groups`."""
    first = leading(step.metrics, step.headline[0] if step.headline else None)
    groups: dict[str, list[str]] = {}
    for name in [name for name in step.metrics if name not in first][:MOST_METRICS]:
        groups.setdefault(group_of(name), []).append(name)
    ordered = sorted(groups, key=lambda group: (group == "", group))
    parts = [
        Markup('<h4>{}</h4><div class="group">{}</div>').format(
            _title(group).replace("/", " / ") or "other",
            facts(dict(_quantity(name, step.metrics[name]) for name in groups[group])),
        )
        for group in ordered
    ]
    cells = Markup("").join(
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(*_quantity(name, step.metrics[name])) for name in first
    )
    return Markup('<dl class="metrics">{}</dl>{}').format(cells, Markup("").join(parts)) if first else Markup("")


def _quantity(name: str, value: float) -> tuple[str, str]:
    label, shown = quantity(name, value)
    return _title(label), shown


def curves(found: Mapping[str, Curve]) -> Markup:
    """The curves of a step's metrics, those of losses first, and in a line the metrics that have not changed."""
    ordered = sorted(found, key=lambda name: (not grouped(name).startswith("loss"), grouped(name)))
    drawable = {name: points for name in ordered if len(points := drawn_points(found[name])) > 1}
    constant = [name for name, points in drawable.items() if len({value for _, value in points}) == 1]
    changing = [name for name in drawable if name not in constant]
    shown = Markup("\n").join(_curve(name, drawable[name], found[name][-1][1]) for name in changing[:MOST_CURVES])
    more = len(changing) - MOST_CURVES
    parts = [Markup('<div class="figures">{}</div>').format(shown)]
    if constant:
        said = ", ".join(" ".join(_quantity(name, found[name][-1][1])) for name in constant[:MOST_METRICS])
        parts.append(Markup('<p class="empty">Constant: {}</p>').format(said))
    if more > 0:
        parts.append(Markup('<p class="empty">{} more curves: the report or MLflow has them.</p>').format(more))
    return Markup("").join(parts)


def _curve(name: str, points: Curve, last: float) -> Markup:
    """A curve and its last value, both in the same unit."""
    title, unit, said = _title(name), "", metric(name, last)
    if counts_bytes(name):
        title = _quantity(name, last)[0]
        unit, bytes_of_unit = size_unit(max(abs(value) for _, value in points))
        points = [(at, value / bytes_of_unit) for at, value in points]
        said = f"{number(last)} B" if unit == "B" else f"{last / bytes_of_unit:,.1f} {unit}"
    return plots.curves(f"{title}: {said}", [plots.Line(title, plots.colour(0, 1), points)], unit, plots.SMALL)


def drawn_points(points: Curve) -> Curve:
    """The finite points of a curve, at most `POINTS`: of a longer one its ends, and the extremes of each part."""
    finite = [(at, value if abs(value) > SMALLEST else 0.0) for at, value in points if abs(value) < LARGEST]
    if len(finite) <= POINTS:
        return finite
    width = -(-len(finite) // (POINTS // 2 - 1))
    kept: set[tuple[int, float]] = {finite[0], finite[-1]}
    for begin in range(0, len(finite), width):
        part = finite[begin : begin + width]
        kept |= {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
    return sorted(kept)


def log(run: RunRecord, step: StepResult, logs: Sequence[KeptLog], process: str, text: str) -> Markup:
    """The processes of a step that have logs, and the end of one of the logs."""
    heading = Markup("<h3>Log</h3>")
    if step.cached_from and step.cached_from != run.run_id:
        there = Markup('<a href="{0}">{1}</a>').format(address(step.cached_from, step.name), step.cached_from)
        return heading + Markup("<p>This step was cached: run {} made it, and has its log.</p>").format(there)
    chosen = next((one for one in logs if one.process == process), None)
    if chosen is None:
        so_far = " so far" if run.state == "running" else ""
        return heading + Markup('<p class="empty">Nothing was printed{}.</p>').format(so_far)
    links = Markup(" ").join(
        Markup('<a href="{}"{}>{}</a>').format(
            address(run.run_id, step.name, one.process),
            Markup(' aria-current="true"') if one is chosen else "",
            one.title,
        )
        for one in logs[:MOST_PROCESSES]
    )
    before = sum(chosen.parts[-1]) - TAIL_BYTES
    earlier = Markup('<p class="empty">{} before this: <code>bloomline logs {} {}</code></p>').format(
        size(max(before, 0)), run.run_id, clean_line(step.name)
    )
    return heading + Markup('<nav class="processes" aria-label="Processes">{}</nav>{}<pre class="log">{}</pre>').format(
        links, earlier if before > 0 else "", text
    )


def _title(name: str) -> str:
    return clean_line(name).replace("_", " ")[:200]
