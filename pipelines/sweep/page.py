"""The page of a sweep: its table, how the values of the jobs relate to the objective, and their curves over each other.

Like the report of a run, it is one self-contained file: no request leaves it, and no script runs in it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from pipelines import run_history, variant
from pipelines.curves import Curve
from pipelines.formatting import duration
from pipelines.report import plots
from pipelines.report.axis import parse
from pipelines.report.html import badge, document, facts, folded, section, write_page
from pipelines.store import Store
from pipelines.sweep.results import Results

MOST_TEXT_BYTES = 100_000  # of an answer that the sweeper left
LEAST_JOBS = 3  # of which a plot says more than the table
MOST_CURVES = 6  # plots of curves


def write(results: Results, store: Store, path: Path) -> Path:
    """Write the page to `path` atomically. Raises OSError."""
    return write_page(render(results, store), path)


def render(results: Results, store: Store) -> str:
    """The page as HTML. Curves are those that the store remembers of the runs."""
    parts = [
        _header(results),
        *_answers(results),
        section("jobs", "Jobs", _table(results)),
        _relation(results),
        _curves(results, store),
        _errors(results),
        section("again", "How to repeat it", Markup("<pre>{}</pre>").format(results.command)),
    ]
    title = f"{results.pipeline}: sweep {results.state}"
    return document(title, Markup("\n").join(part for part in parts if part))


def _header(results: Results) -> Markup:
    when = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(results.began))
    states = [job.state for job in results.jobs]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    rows: dict[str, object] = {"Began": when, "Took": duration(results.ended - results.began), "Jobs": counted}
    if results.config.objective:
        rows["Objective"] = f"{results.config.objective}, {results.config.direction}"
    rows |= {"Sweep": results.sweep}
    return Markup('<header>\n<p class="kind">Sweep</p>\n<h1>{} {}</h1>\n{}\n</header>').format(
        results.pipeline, badge(results.state), facts(rows)
    )


def _answers(results: Results) -> list[Markup]:
    """The texts that the sweeper left, such as the best values of each context."""
    texts = [path for path in results.left if path.suffix == ".txt" and path.stat().st_size <= MOST_TEXT_BYTES]
    return [
        section(f"answer-{number}", path.stem.replace("_", " ").capitalize(), Markup("<pre>{}</pre>").format(text))
        for number, (path, text) in enumerate((path, path.read_text("utf-8", "replace")) for path in texts)
    ]


def _table(results: Results) -> Markup:
    titles, rows = results.rows()
    state = titles.index("State")
    numeric = [_numeric([row[column] for row in rows]) for column in range(len(titles))]
    ordered = results.ordered()
    colours = [plots.colour(place, len(ordered)) for place in range(len(ordered))]
    body = []
    for job, row, colour in zip(ordered, rows, colours, strict=True):
        cells = []
        for column, text in enumerate(row):
            shown: Markup | str = badge(text) if column == state else text
            if column == 0:
                dot = Markup('<span class="dot" style="background:{}"></span>').format(colour)
                link = Markup('<a href="../{}/report.html">{}</a>').format(job.run_id, text) if job.report else text
                shown = Markup("{}{}").format(dot, link)
            kind = Markup(' class="n"') if numeric[column] and column != 0 else ""
            cells.append(Markup("<td{}>{}</td>").format(kind, shown))
        body.append(Markup("<tr>{}</tr>").format(Markup("").join(cells)))
    heads = Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(Markup(' class="n"') if numeric[column] and column else "", title)
        for column, title in enumerate(titles)
    )
    return Markup('<div class="scroll"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>').format(
        heads, Markup("\n").join(body)
    )


def _numeric(texts: Sequence[str]) -> bool:
    """Whether a column holds numbers, with or without a unit."""
    return all(parse(text.split(" ")[0].replace(",", "")) is not None for text in texts if text)


def _relation(results: Results) -> Markup:
    """How the swept values relate to the first measure: a heat map of two of them, else parallel coordinates."""
    swept, measures = results.swept(), results.measures()
    if not swept or not measures:
        return Markup("")
    measure = measures[0]
    jobs = [job for job in results.ordered() if results.measure(job, measure) is not None]
    if len(jobs) < LEAST_JOBS:
        return Markup("")
    short = variant.short_keys(swept)
    values = [results.measure(job, measure) or 0.0 for job in jobs]
    name = measure.replace("_", " ")
    if len(swept) == 2:
        one, two = swept
        cells = {
            (swept[one][job.number], swept[two][job.number]): value for job, value in zip(jobs, values, strict=True)
        }
        firsts, seconds = {first for first, _ in cells}, {second for _, second in cells}
        if len(cells) == len(jobs) and len(firsts) * len(seconds) <= 2 * len(cells):  # a grid, more or less
            sign = -1 if results.config.direction == "maximize" else 1
            drawn = plots.heat_map(f"{name} by {short[one]} and {short[two]}", (short[one], short[two]), cells, sign)
            return section("relation", "Values and results", drawn)
    columns: dict[str, list[str | float]] = {short[key]: [swept[key][job.number] for job in jobs] for key in swept}
    columns[name] = list(values)
    colours = [plots.colour(place, len(results.jobs)) for place in range(len(jobs))]
    drawn = plots.parallel_coordinates(f"The jobs by their values and {name}", columns, colours)
    return section("relation", "Values and results", drawn)


def _curves(results: Results, store: Store) -> Markup:
    """The curves of losses, one plot for each metric of a step that at least two jobs have."""
    found: dict[tuple[str, str], list[plots.Line]] = {}
    ordered = results.ordered()
    swept = results.swept()
    for place, job in enumerate(ordered):
        run = run_history.read(store, job.run_id) if job.run_id else None
        label = f"job {job.number}, " + variant.described({key: swept[key][job.number] for key in swept})
        for step in run.steps if run else ():
            for name, points in run_history.curves(store, run, step.name).items() if run else ():
                if "loss" in name and "/" not in name:
                    line = plots.Line(label, plots.colour(place, len(ordered)), _finite(points))
                    found.setdefault((step.name, name), []).append(line)
    drawn = [
        plots.curves(f"{step}: {name.replace('_', ' ')}", lines)
        for (step, name), lines in list(found.items())
        if sum(len(line.points) > 1 for line in lines) > 1 and len({line.label for line in lines}) > 1
    ]
    if not drawn:
        return Markup("")
    grid = Markup('<div class="figures">{}</div>').format(Markup("\n").join(drawn[:MOST_CURVES]))
    return section("curves", "Curves", grid)


def _finite(points: Curve) -> Curve:
    return [(at, value) for at, value in points if parse(value) is not None]


def _errors(results: Results) -> Markup:
    failed = [job for job in results.jobs if job.error]
    shown = [folded(f"Job {job.number}: {job.described}", job.error) for job in failed]
    return section("errors", "Errors", Markup("\n").join(shown)) if shown else Markup("")
