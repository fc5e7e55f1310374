"""The results of a sweep: its jobs in order, the best first, and the table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.terminal_text import clean
from pipelines import variant
from pipelines.formatting import duration, metric, short_value
from pipelines.sweep.job import FINISHED, SweepJob, swept
from pipelines.sweep_config import SweepConfig
from pipelines.table import Cell, Column, draw
from pipelines.terminal import COLOURS, say_left_out

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Results:
    """A sweep that has ended."""

    sweep: str  # id
    pipeline: str
    config: SweepConfig
    state: str  # done | failed | stopped
    command: str
    began: float
    ended: float  # seconds since the epoch
    jobs: tuple[SweepJob, ...]
    left: tuple[Path, ...] = ()  # files that the sweeper left, such as its answer

    def swept(self) -> Mapping[str, Sequence[str]]:
        return swept(self.jobs)

    def objective(self, job: SweepJob) -> float | None:
        return job.objective(self.config.metric)

    def ordered(self) -> list[SweepJob]:
        """The jobs, the best first; those without an objective last, in their order."""
        sign = -1 if self.config.direction == "maximize" else 1

        def place(job: SweepJob) -> tuple[bool, float, int]:
            found = self.objective(job)
            return found is None, sign * found if found is not None else 0.0, job.number

        return sorted(self.jobs, key=place)

    def measures(self) -> list[str]:
        """What the jobs are shown with: the objective, then the headlines of the last steps, as `step metric`.

        A job that did not finish has earlier steps as its last ones: they count only if no job finished.
        """
        found = [" ".join(self.config.metric)] if self.config.metric else []
        jobs = [job for job in self.jobs if job.state in FINISHED] or self.jobs
        return list(dict.fromkeys([*found, *(name for job in jobs for name in job.headlines())]))

    def measure(self, job: SweepJob, name: str) -> float | None:
        if self.config.metric and name == " ".join(self.config.metric):
            return self.objective(job)
        return job.headlines().get(name)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """The table as texts: its titles, and a row for each job in order."""
        swept, measures = self.swept(), self.measures()
        short = variant.short_keys(swept)
        titles = ["Job", *short.values(), *(name.replace("_", " ") for name in measures), "State", "Time"]
        rows = []
        for job in self.ordered():
            values = [short_value(swept[key][job.number]) for key in swept]
            found = [(name, self.measure(job, name)) for name in measures]
            shown = ["" if value is None else metric(name.split(" ", 1)[1], value) for name, value in found]
            seconds = "" if job.seconds is None or job.state == "cached" else duration(job.seconds)
            rows.append([str(job.number), *values, *shown, job.state, seconds])
        return titles, rows

    def note(self) -> str:
        """The table in Markdown, for MLflow."""
        titles, rows = self.rows()
        lines = [f"**{self.pipeline}**: sweep of {len(self.jobs)} jobs, {self.state}", ""]
        lines += [f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *rows)]
        return "\n".join([*lines, "", f"Again: `{self.command}`"])

    def parameters(self) -> dict[str, str]:
        """What was swept, with all values of each key."""
        found = {key: ", ".join(dict.fromkeys(values)) for key, values in self.swept().items()}
        return found | ({"sweep.objective": self.config.objective} if self.config.objective else {})

    def best(self) -> dict[str, float]:
        """The measures of the best job, as metrics of the sweep."""
        if not self.config.metric:
            return {}
        first = self.ordered()[0]
        found = {name.replace(" ", "/"): self.measure(first, name) for name in self.measures()}
        return {f"best/{name}": value for name, value in found.items() if value is not None}


def show(out: Console, results: Results, page: Path | None, compare: str) -> None:
    """The table of a sweep, the errors of its jobs, its page, and the command that lists its runs."""
    from rich.text import Text

    titles, rows = results.rows()
    names = {"Job", "State", "Time", *variant.short_keys(results.swept()).values()}
    # With an objective, the other measures are left out where the table would be too wide for the runs' names.
    measures = results.measures()
    others = {name.replace("_", " ") for name in measures[1:]} if results.config.metric else set()
    columns = [
        Column(title, flexible=title not in names, fold=True, right=title != "State", optional=title in others)
        for title in titles
    ]
    columns += [Column("Run")]
    cells = [
        [*map(Cell, map(clean, row)), Cell(job.run_id or "")] for job, row in zip(results.ordered(), rows, strict=True)
    ]
    state = titles.index("State")
    for line in cells:
        line[state] = Cell(line[state].text, COLOURS.get(line[state].text, "dim"))
    out.print()
    say_left_out(out, draw(out, columns, cells))
    for job in results.jobs:
        if job.error:
            about = f"\nJob {job.number} ({job.described}): "
            out.print(Text(clean(about), "bold red") + Text(clean(job.error)), soft_wrap=True)
    for note in dict.fromkeys(note for job in results.jobs for note in job.notes):
        out.print(Text(f"\nNote: {clean(note)}", "yellow"))
    measured = any(results.objective(job) is not None for job in results.jobs)
    if results.config.metric and not measured:
        step, name = results.config.metric
        finished = [job for job in results.jobs if job.state in FINISHED]
        known = sorted({name for job in finished for one in job.steps if one.name == step for name in one.metrics})
        lacks = f"step {step} has no metric {name!r}. It has {', '.join(known) or 'none'}."
        note = f"no job has {results.config.objective}: {lacks if finished else 'none has finished.'}"
        out.print(Text(f"\nNote: {clean(note)}", "yellow"))
    took = duration(results.ended - results.began)
    by = f", best first by {results.config.objective} ({results.config.direction})" if measured else ""
    name = f"{clean(results.pipeline)}: sweep" if results.pipeline else "Sweep"  # without one if all jobs are refused
    out.print(Text(f"\n{name} {results.state} in {took}{by}", COLOURS.get(results.state, "")))
    if page is not None:
        out.print(Text(f"Report: {page}"), soft_wrap=True)
    out.print(Text(f"Compare: {compare}"), soft_wrap=True)
