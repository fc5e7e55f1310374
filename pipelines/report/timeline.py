"""When the steps of a run ran: a lane for each step with a bar for each attempt, over one axis of time."""

from __future__ import annotations

import math

from markupsafe import Markup

from pipelines.formatting import duration
from pipelines.report.html import WORDS, section
from pipelines.summary import Attempt, RunSummary, StepSummary

MOST_MARKS = 6
HOUR = 3600
# Distances between two marks, in seconds.
INTERVALS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR)
LANE = Markup('<svg class="lane" width="100%" height="24" role="img" aria-label="{}">{}{}</svg>')


def timeline(run: RunSummary) -> Markup:
    """The timeline as a section; nothing if no step was started."""
    if not any(step.attempts for step in run.steps):
        return Markup("")
    ended = max(attempt.ended for step in run.steps for attempt in step.attempts)
    seconds = max(run.seconds, ended - run.started, 1e-3)
    marks = axis_marks(seconds)
    grid = Markup("").join(
        Markup('<line x1="{0:.3f}%" x2="{0:.3f}%" y1="0" y2="100%"/>').format(100 * at / seconds) for at, _ in marks
    )
    rows = Markup("\n").join(_row(step, run.started, seconds, grid) for step in run.steps)
    labels = Markup("").join(
        Markup('<text x="{:.3f}%" y="14" text-anchor="{}">{}</text>').format(
            100 * at / seconds, "start" if at == 0 else "end" if at > 0.94 * seconds else "middle", label
        )
        for at, label in marks
    )
    axis = Markup('<div></div><svg class="lane" width="100%" height="20" aria-hidden="true">{}</svg><div></div>')
    started = any(_starting(step, attempt) > 0.01 * seconds for step in run.steps for attempt in step.attempts)
    key = Markup('<p class="key">The light part of a bar is the start of the step\'s process.</p>') if started else ""
    drawn = Markup('<div class="timeline">{}\n{}</div>{}').format(rows, axis.format(labels), key)
    return section("timeline", "Timeline", drawn)


def axis_marks(seconds: float) -> list[tuple[float, str]]:
    """At most seven marks of an axis from 0 to `seconds`: where, and what is written there."""
    wanted = seconds / MOST_MARKS
    days = math.ceil(wanted / (24 * HOUR)) * 24 * HOUR
    interval = next((one for one in INTERVALS if one >= wanted), days)
    return [(at, _mark(at, interval, seconds)) for at in range(0, math.floor(seconds) + 1, interval)]


def _mark(at: int, interval: int, seconds: float) -> str:
    if at == 0:
        return "0"
    if interval < 60:
        return f"{at} s"
    if interval < HOUR and seconds < HOUR:
        return f"{at // 60} min"
    return f"{at // HOUR} h" if interval >= HOUR else f"{at // HOUR}:{at % HOUR // 60:02d} h"


def _row(step: StepSummary, began: float, seconds: float, grid: Markup) -> Markup:
    bars = [_bar(step, index, began, seconds) for index in range(len(step.attempts))]
    said = WORDS[step.state]
    if step.state == "cached":
        mark = '<g class="cached"><title>{}: {}</title><rect x="0" y="6" width="12" height="12" rx="3"/></g>'
        bars.append(Markup(mark).format(step.name, step.reason))
    elif step.attempts and step.seconds is not None:
        said = duration(step.seconds) if step.state == "done" else f"{said} after {duration(step.seconds)}"
    if len(step.attempts) > 1:
        said += f", {len(step.attempts)} attempts"
    lane = LANE.format(f"{step.name}: {said}", grid, Markup("").join(bars))
    return Markup('<a href="#step-{0}">{0}</a>{1}<span>{2}</span>').format(step.name, lane, said)


def _starting(step: StepSummary, attempt: Attempt) -> float:
    """The seconds in which the process of an attempt was started, as far as they are known: of one that is done."""
    if attempt.state != "done" or step.state != "done" or step.seconds is None:
        return 0.0
    return max(attempt.seconds - step.seconds, 0.0)


def _bar(step: StepSummary, index: int, began: float, seconds: float) -> Markup:
    attempt = step.attempts[index]
    start = max(attempt.began - began, 0)
    # A result may be refused after the work was done.
    state = "failed" if step.state == "failed" and index == len(step.attempts) - 1 else attempt.state
    number = f", attempt {index + 1}" if len(step.attempts) > 1 else ""
    said = f"{step.name}{number}: {state} after {duration(attempt.seconds)}. It began {duration(start)} after the run."
    starting = _starting(step, attempt)
    if starting and step.seconds is not None:
        said += f" Its work took {duration(step.seconds)}, the start of its process the rest."
    return Markup(
        '<g class="{}"><title>{}</title><rect class="starting" x="{:.3f}%" y="4" width="{:.3f}%" height="16" rx="3"/>'
        '<rect x="{:.3f}%" y="4" width="{:.3f}%" height="16" rx="3"/></g>'
    ).format(
        state,
        said,
        100 * start / seconds,
        100 * attempt.seconds / seconds,
        100 * (start + starting) / seconds,
        100 * (attempt.seconds - starting) / seconds,
    )
