"""Renders a run as one self-contained HTML page: no request leaves it, no script runs in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from markupsafe import Markup

from pipelines.formatting import duration, quantity, size
from pipelines.report.comparison import comparison
from pipelines.report.failure import failure_box
from pipelines.report.graph_drawing import graph_svg
from pipelines.report.html import badge, document, facts, folded, section, write_page
from pipelines.report.paths import shortened, shortener
from pipelines.report.result import result
from pipelines.report.step import stage_of, step_section
from pipelines.report.timeline import timeline
from pipelines.run_record import RunRecord
from pipelines.summary import RunSummary, StepSummary
from stages.base import VERDICT


def render(run: RunSummary, store: str = "", before: RunRecord | None = None) -> str:
    """The page as HTML. All text of the run is escaped.

    `store`: the address of the store's root. `before`: the run with which this one is compared.
    """
    shorten = shortener(store)
    run = shortened(run, shorten)
    parts = [
        _header(run),
        failure_box(run, shorten),
        result(run, store, shorten),
        _notes(run),
        timeline(run),
        section("graph", "Graph", Markup('<div class="scroll">{}</div>').format(_graph(run.steps))),
        _highlights(run.steps),
        comparison(run, before, shorten) if run.state == "done" else "",
        section("steps", "Steps", _table(run.steps)),
        *map(step_section, run.steps),
        _again(run),
        section("config", "Configuration", folded("The whole pipeline as it was composed", run.config_yaml)),
    ]
    body = Markup("\n").join(part for part in parts if part)
    return document(f"{run.pipeline}: {run.state}", body, _contents(run, body))


def write(run: RunSummary, path: Path, store: str = "", before: RunRecord | None = None) -> Path:
    """Write the page to `path` atomically. Raises OSError."""
    return write_page(render(run, store, before), path)


# ---------------------------------------------------------------------------------------------------------------
# The parts


def _header(run: RunSummary) -> Markup:
    return Markup('<header>\n<p class="kind">Pipeline run</p>\n<h1>{} {}</h1>\n</header>').format(
        run.pipeline, badge(run.state)
    )


def _contents(run: RunSummary, body: Markup) -> Markup:
    """Links to the sections that the page has, and to its steps."""
    titles = {
        "result": "Result",
        "timeline": "Timeline",
        "graph": "Graph",
        "highlights": "Highlights",
        "before": "The run before",
        "steps": "Steps",
        "again": "Repeat it",
        "config": "Configuration",
    }
    links = []
    for name, title in titles.items():
        if f'<section id="{name}"' in body:
            links.append(Markup('<a href="#{}">{}</a>').format(name, title))
        if name == "steps":
            links += [
                Markup('<a class="of-step {0}" href="#step-{1}">{1}</a>').format(step.state, step.name)
                for step in run.steps
            ]
    return Markup('<nav class="contents" aria-label="Contents">{}</nav>').format(Markup("\n").join(links))


def _notes(run: RunSummary) -> Markup:
    notes = Markup("").join(Markup("<p>{}</p>").format(note) for note in run.notes)
    return Markup('<aside class="notes" aria-label="Notes">{}</aside>').format(notes) if run.notes else Markup("")


def _graph(steps: Sequence[StepSummary]) -> Markup:
    return Markup(graph_svg(steps, lambda name: f"#step-{name}"))


def _highlights(steps: Iterable[StepSummary]) -> Markup:
    shown = Markup("\n").join(
        Markup("<figure class=highlight><figcaption>{} <span>{}</span></figcaption><pre>{}</pre></figure>").format(
            title, step.name, text
        )
        for step in steps
        for title, text in step.highlights.items()
        if title != VERDICT
    )
    return section("highlights", "Highlights", shown) if shown else Markup("")


def _table(steps: Iterable[StepSummary]) -> Markup:
    rows = Markup("\n").join(
        Markup(
            '<tr><th scope="row"><a href="#step-{name}">{name}</a>{stage}</th><td>{badge}</td>'
            '<td class="n">{time}</td><td>{metric}</td><td class="n">{size}</td><td class="why">{reason}</td></tr>'
        ).format(
            name=step.name,
            stage=stage_of(step),
            badge=badge(step.state),
            time=duration(step.seconds) if step.seconds is not None else "",
            metric=_headline(step),
            size=size(step.size_bytes) if step.size_bytes is not None else "",
            reason=step.reason,
        )
        for step in steps
    )
    heads = Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(Markup(' class="n"') if name in ("Time", "Size") else "", name)
        for name in ("Step", "State", "Time", "Headline", "Size", "Why")
    )
    return Markup(
        '<div class="scroll"><table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody></table></div>'
    ).format(heads, rows)


def _headline(step: StepSummary) -> Markup | str:
    return Markup("{} <strong>{}</strong>").format(*quantity(*step.headline)) if step.headline else ""


def _again(run: RunSummary) -> Markup:
    checkout = f"git checkout {run.git_commit}\n" if run.git_commit else ""
    dirty = (
        Markup("<p>The working tree had changes that are in no commit: the same commit may not give the same run.</p>")
        if run.git_dirty
        else ""
    )
    versions = facts(run.versions)
    return section(
        "again", "How to repeat it", Markup("<pre>{}{}</pre>\n{}{}").format(checkout, run.command, dirty, versions)
    )
