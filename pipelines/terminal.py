"""The terminal output: the plan, live progress, and the table at the end.

On a terminal, progress is redrawn in place; elsewhere (a log, CI) it is a plain line now and then. Made for 80 columns.
`rich` is imported by what draws with it, not with this module: a command that has nothing to show stays quick.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from cluster import submitted_job
from cluster.terminal_text import clean, clean_line, indented
from pipelines.formatting import brief, duration, metric, size
from pipelines.summary import RunSummary, StepSummary
from pipelines.table import Cell, Column, draw

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from cluster.base import Message
    from pipelines.store import Record

REFRESH_PER_S = 4
RATE_WINDOW_S = 30.0  # the time left follows the speed of the last half minute
PLAIN_INTERVAL_S = 10.0
BAR_WIDTH = 12
WIDE = 120  # columns that the table of artifacts needs for everything that is known
COLOURS = {
    "done": "green",
    "cached": "blue",
    "run": "yellow",
    "running": "yellow",
    "stopped": "yellow",
    "failed": "bold red",
    "blocked": "bold red",
}


@dataclass(frozen=True)
class PlanRow:
    """One line of the plan."""

    name: str
    stage: str
    state: str  # cached | run | blocked | unselected
    reason: str
    where: str = ""  # the artifact's address, if there is one


def console(file: TextIO | None = None, width: int | None = None) -> Console:
    """The console to draw on, without colour if NO_COLOR is set or the output is not a terminal.

    What is written to a file or a pipe has `WIDE` columns, unless COLUMNS is set.
    """
    from rich.console import Console

    if width is None and not (file or sys.stdout).isatty() and "COLUMNS" not in os.environ:
        width = WIDE
    return Console(file=file, width=width, highlight=False, soft_wrap=False)


# ---------------------------------------------------------------------------------------------------------------
# Tables


def show_plan(out: Console, rows: Sequence[PlanRow]) -> None:
    """The plan: which steps are cached, which would run, which are blocked, and why."""
    columns = [
        Column("Step", most=20),
        Column("Stage", most=14),
        Column("Plan"),
        Column("Why", flexible=True, fold=True),
        Column("Where", optional=True),
    ]
    cells = [
        (
            Cell(row.name),
            Cell(row.stage),
            _state(row.state),
            Cell(row.reason),
            Cell(short_path(row.where)),
        )
        for row in rows
        if row.state != "unselected"
    ]
    draw(out, columns, cells)
    _say_unselected(out, rows)


def show_artifacts(out: Console, records: Sequence[tuple[Record, str]]) -> None:
    """The artifacts of a store, one on each line, each with what tells it from others of its step.

    Of the fingerprint there are as many digits as `artifacts show` needs.
    """
    hidden: tuple[str, ...] = (
        () if out.width >= WIDE + 30 else ("By run",) if out.width >= WIDE else ("Makes", "Made", "By run")
    )
    titles = ("Step", "Pipeline", "Makes", "Headline", "Differs by", "Size", "Fingerprint", "Made", "By run")
    flexible = ("Headline", "Differs by")
    columns = [
        Column(title, most=24, flexible=title in flexible, fold=title in flexible, right=title == "Size")
        for title in titles
    ]
    rows = [
        (
            record.step,
            record.pipeline,
            record.artifact,
            _headline_of(record),
            differs,
            size(record.size_bytes),
            record.fingerprint[:12],
            time.strftime("%m-%d %H:%M", time.localtime(record.created)),
            record.run_id,
        )
        for record, differs in records
    ]
    shown = [index for index, title in enumerate(titles) if title not in hidden]
    cells = [[Cell(row[index]) for index in shown] for row in rows]
    draw(out, [columns[index] for index in shown], cells)
    say_left_out(out, hidden)


def say_left_out(out: Console, titles: Sequence[str]) -> None:
    """Name the columns for which a list had no room."""
    from rich.text import Text

    if titles:
        said = f"No room for {', '.join(titles)}: a wider terminal shows more, or a file with COLUMNS={WIDE + 30}."
        out.print(Text(clean_line(said), "dim"), soft_wrap=True)


def show_result(out: Console, run: RunSummary, report: Path | None, commands: Sequence[str]) -> None:
    """The result of a run: its table, highlights, errors, notes, the report and the next commands.

    A paragraph is broken into lines on a terminal only: in a file or a pipe, whoever reads it breaks it.
    """
    from rich.padding import Padding
    from rich.text import Text

    whole = not out.is_terminal
    columns = [
        Column("Step", most=18),
        Column("State"),
        Column("Time", right=True),
        Column("Headline", flexible=True, fold=True),
        Column("Artifact", flexible=True),
        Column("Where", optional=True),
    ]
    cells = [
        (
            Cell(step.name),
            _state(step.state),
            Cell(duration(step.seconds) if step.seconds is not None else ""),
            Cell(headline(step)),
            Cell(_artifact(step)),
            Cell(short_path(step.artifact or "")),
        )
        for step in run.steps
        if step.state != "unselected"
    ]
    out.print()
    draw(out, columns, cells)
    _say_unselected(out, run.steps)
    for step in run.steps:
        if step.error:
            said = Text(f"\n{clean_line(step.name)}: ", "bold red") + Text(clean(step.error), "default")
            out.print(said, soft_wrap=whole)
            if step.frames:
                out.print(Text(indented(step.frames), "dim"), soft_wrap=True)
        for title, text in step.highlights.items():
            out.print(Text(f"\n{clean_line(title)} ({clean_line(step.name)})", "bold"))
            out.print(Text(indented(text)) if whole else Padding(Text(clean(text)), (0, 0, 0, 2)), soft_wrap=whole)
    for note in run.notes:
        out.print(Text(f"\nNote: {clean(note)}", "yellow"), soft_wrap=whole)
    out.print(Text(f"\n{clean_line(run.pipeline)}: {run.state} in {duration(run.seconds)}", COLOURS.get(run.state, "")))
    if report is not None:
        there = " on the head node" if submitted_job.in_submitted_job() else ""
        out.print(Text(clean_line(f"Report{there}: {report}")), soft_wrap=True)
    if commands:
        out.print(Text("Next:"))
        for command in commands:
            out.print(Text(f"  {clean_line(command)}"), soft_wrap=True)


def _say_unselected(out: Console, steps: Sequence[PlanRow | StepSummary]) -> None:
    """Name the steps that `from`, `until` and `only` left out, which have no row."""
    from rich.text import Text

    if names := [clean_line(step.name) for step in steps if step.state == "unselected"]:
        out.print(Text(f"Not selected: {', '.join(names)}", "dim"))


def headline(step: StepSummary) -> str:
    if step.headline is None:
        return ""
    return f"{clean_line(step.headline[0]).replace('_', ' ')} {metric(*step.headline)}"


def _headline_of(record: Record) -> str:
    name = record.headline
    return f"{name.replace('_', ' ')} {metric(name, record.metrics[name])}" if name and name in record.metrics else ""


def _state(state: str) -> Cell:
    return Cell(state, COLOURS.get(state, "dim"))


def _artifact(step: StepSummary) -> str:
    parts = [step.artifact_type or "", size(step.size_bytes) if step.artifact and step.size_bytes is not None else ""]
    return ", ".join(part for part in parts if part) if step.artifact else ""


def short_path(address: str) -> str:
    """An address below the working directory as a relative path."""
    try:
        return str(Path(address).relative_to(Path.cwd())) if address else ""
    except ValueError:
        return address


# ---------------------------------------------------------------------------------------------------------------
# Progress


@dataclass
class Gauge:
    """How far one running step is. `began`: monotonic seconds; the beginning of its work, once its process is there."""

    began: float
    done: float = 0.0
    total: float = 0.0
    unit: str = ""
    info: Mapping[str, float | str] = field(default_factory=dict)
    seen: deque[tuple[float, float]] = field(default_factory=deque)  # (time, done) within the window

    def update(self, now: float, done: float, total: float, unit: str, info: Mapping[str, float | str]) -> None:
        if total != self.total or unit != self.unit or done < self.done:
            self.seen.clear()  # another phase
        self.done, self.total, self.unit, self.info = done, total, unit, dict(info)
        self.seen.append((now, done))
        while len(self.seen) > 2 and now - self.seen[0][0] > RATE_WINDOW_S:
            self.seen.popleft()

    @property
    def fraction(self) -> float | None:
        return min(max(self.done / self.total, 0.0), 1.0) if self.total > 0 else None

    def seconds_left(self, now: float) -> float | None:
        """Seconds left at the recent speed; None while the speed is not known."""
        if len(self.seen) < 2 or self.total <= 0:
            return None
        (began, first), (_, last) = self.seen[0], self.seen[-1]
        if last <= first:
            return None
        left = (self.total - last) * (self.seen[-1][0] - began) / (last - first)
        return max(left - (now - self.seen[-1][0]), 0.0)

    def count(self) -> str:
        if not self.seen:
            return ""
        if self.unit == "bytes":
            return size(round(self.done)) + (f" of {size(round(self.total))}" if self.total > 0 else "")
        return f"{brief(self.done)}{f'/{brief(self.total)}' if self.total > 0 else ''} {clean_line(self.unit)}".strip()

    def time(self, now: float) -> str:
        """The time left, or the time taken so far if the time left is not known."""
        left = self.seconds_left(now)
        return f"{duration(now - self.began)} so far" if left is None else f"{duration(left)} left"

    def values(self) -> str:
        shown = (f"{name} {brief(v) if isinstance(v, int | float) else v}" for name, v in self.info.items())
        return clean_line(", ".join(shown))


class Display:
    """Shows a run while it is in progress: an observer of the runner.

    `job`: the number of the run in a sweep, whose runs share the terminal and so get plain lines.
    """

    def __init__(self, out: Console, plain_interval_s: float = PLAIN_INTERVAL_S, job: str = "") -> None:
        self._out = out
        self._job = job
        self._live: Live | None = None
        self._gauges: dict[str, Gauge] = {}
        self._said: dict[str, float] = {}  # plain lines: when each step last had one
        self._interval_s = plain_interval_s
        self._width = 8

    def run_started(self, run: RunSummary) -> None:
        self._width = min(max((len(step.name) for step in run.steps), default=8), 18)
        if self._out.is_terminal and not self._out.is_dumb_terminal and not self._job:
            from rich.live import Live

            self._live = Live(
                console=self._out, get_renderable=self._draw, refresh_per_second=REFRESH_PER_S, transient=True
            )
            self._live.start()

    def step_started(self, step: StepSummary) -> str | None:
        self._gauges[step.name] = Gauge(time.monotonic())
        if self._live is None:
            self._say(step.name, f"starts: {step.reason}")
        return None

    def step_message(self, message: Message) -> None:
        if message.kind == "note":
            self._say(message.step, str(message.body["text"]))
        elif message.kind == "started" and message.step in self._gauges:
            self._gauges[message.step] = Gauge(time.monotonic())  # the time of a step is that of its work
        elif message.kind == "progress" and message.step in self._gauges:
            body, now = message.body, time.monotonic()
            gauge = self._gauges[message.step]
            gauge.update(now, body["done"], body["total"], body.get("unit", ""), body.get("info", {}))
            if self._live is None and now - self._said.get(message.step, 0.0) >= self._interval_s:
                self._say(message.step, plain_line(gauge, now))

    def step_finished(self, step: StepSummary, record: object = None) -> None:
        self._gauges.pop(step.name, None)
        parts: list[str] = [step.state]
        if step.seconds is not None and step.state != "cached":
            parts.append(duration(step.seconds))
        parts += [next(iter(step.error.splitlines()), "")] if step.error else [headline(step)]
        if step.state in ("cached", "skipped"):
            parts.append(step.reason)
        self._say(step.name, "  ".join(part for part in parts if part), COLOURS.get(step.state, "dim"))

    def run_finished(self, run: RunSummary) -> None:
        self.close()

    def notice(self, source: str, text: str) -> None:
        """One line about something that is not a step. From any thread."""
        self._say(source, text, "yellow")

    def close(self) -> None:
        """Remove the progress from the screen. Can be called again."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _say(self, step: str, text: str, style: str = "") -> None:
        """One line that stays, above what is redrawn."""
        from rich.text import Text

        self._said[step] = time.monotonic()
        line = Text(f"{time.strftime('%H:%M:%S')} {self._job}", "dim")
        line += Text(f"{clean_line(step):<{self._width}}  ", "bold")
        head, _, more = clean(text).partition("\n")
        first, _, rest = head.partition("  ")
        said = line + Text(first, style or "default") + Text(f"  {rest}" if rest else "", "default")
        self._out.print(said + Text(f"\n{indented(more)}" if more else ""), soft_wrap=True)

    def _draw(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now = time.monotonic()
        gauges = [(clean_line(name)[: self._width], gauge) for name, gauge in list(self._gauges.items())]
        counts = [gauge.count() for _, gauge in gauges]
        times = [gauge.time(now) for _, gauge in gauges]
        fixed = [self._width, BAR_WIDTH, max(map(len, counts), default=0), max(map(len, times), default=0)]
        room = self._out.width - sum(fixed) - 2 * len(fixed)
        table = Table.grid(padding=(0, 2, 0, 0))
        for index, width in enumerate(fixed):
            table.add_column(no_wrap=True, width=width, justify="right" if index >= 2 else "left")
        table.add_column(no_wrap=True, overflow="ellipsis", width=max(room, 1))
        for (name, gauge), count, left in zip(gauges, counts, times, strict=True):
            fraction = gauge.fraction
            bar = ProgressBar(total=1.0, completed=fraction or 0.0, pulse=fraction is None)
            table.add_row(Text(name, "bold"), bar, Text(count), Text(left), Text(gauge.values(), "dim"))
        return table


def plain_line(gauge: Gauge, now: float) -> str:
    """A gauge as one line of a log."""
    parts = [gauge.count()]
    if gauge.fraction is not None:
        parts[0] += f" ({gauge.fraction:.0%})"
    if gauge.info:
        parts.append(gauge.values())
    return ", ".join([*parts, gauge.time(now)])
