"""Renders a run as one self-contained HTML page: no request leaves it, no script runs in it."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from pipelines.formatting import duration, metric, size
from pipelines.report.failure import failure_box
from pipelines.report.graph_drawing import graph_svg
from pipelines.report.html import WORDS, badge, document, facts, folded, section, write_page
from pipelines.summary import RunSummary, StepSummary

LARGEST_FIGURE_BYTES = 8 << 20  # and of a page


def render(run: RunSummary) -> str:
    """The page as HTML. All text of the run is escaped. A file that can't be read is named instead of shown."""
    body = Markup("\n").join(
        part
        for part in (
            _header(run),
            failure_box(run),
            _notes(run),
            section("graph", "Graph", Markup('<div class="scroll">{}</div>').format(_graph(run.steps))),
            _highlights(run.steps),
            section("steps", "Steps", _table(run.steps)),
            *(_step(step) for step in run.steps),
            _again(run),
            section("config", "Configuration", folded("The whole pipeline as it was composed", run.config_yaml)),
        )
        if part
    )
    return document(f"{run.pipeline}: {run.state}", body)


def write(run: RunSummary, path: Path) -> Path:
    """Write the page to `path` atomically. Raises OSError."""
    return write_page(render(run), path)


# ---------------------------------------------------------------------------------------------------------------
# The parts


def _header(run: RunSummary) -> Markup:
    when = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(run.started))
    commit = "not in a git checkout"
    if run.git_commit:
        commit = run.git_commit[:12] + (" with uncommitted changes" if run.git_dirty else "")
    counts = {state: sum(step.state == state for step in run.steps) for state in WORDS}
    counted = ", ".join(f"{count} {WORDS[state]}" for state, count in counts.items() if count)
    rows = {"Began": when, "Took": duration(run.seconds), "Steps": counted, "Commit": commit, "Run": run.run_id}
    return Markup('<header>\n<p class="kind">Pipeline run</p>\n<h1>{name} {badge}</h1>\n{facts}\n</header>').format(
        name=run.pipeline, badge=badge(run.state), facts=facts(rows)
    )


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
    )
    return section("highlights", "Highlights", shown) if shown else Markup("")


def _table(steps: Iterable[StepSummary]) -> Markup:
    rows = Markup("\n").join(
        Markup(
            '<tr><th scope="row"><a href="#step-{name}">{name}</a></th><td>{stage}</td><td>{badge}</td>'
            '<td class="n">{time}</td><td>{metric}</td><td class="n">{size}</td><td class="why">{reason}</td></tr>'
        ).format(
            name=step.name,
            stage=step.stage,
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
        for name in ("Step", "Stage", "State", "Time", "Headline", "Size", "Why")
    )
    return Markup(
        '<div class="scroll"><table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody></table></div>'
    ).format(heads, rows)


def _step(step: StepSummary) -> Markup:
    rows: dict[str, object] = {"Why": step.reason}
    if step.inputs:
        links = (Markup('<a href="#step-{0}">{0}</a>').format(name) for name in step.inputs)
        rows["Reads"] = Markup(", ").join(links)
    if step.seconds is not None:
        rows["Took"] = duration(step.seconds)
    if step.artifact:
        kind = f"{step.artifact_type}, " if step.artifact_type else ""
        rows["Artifact"] = Markup("{}{}<br><code>{}</code>").format(
            kind, size(step.size_bytes) if step.size_bytes is not None else "size unknown", step.artifact
        )
    rows["Fingerprint"] = Markup("<code>{}</code>").format(step.fingerprint)
    error = Markup('<div class="error" role="alert"><pre>{}</pre></div>').format(step.error) if step.error else ""
    figures = Markup("\n").join(_figure(name, path) for name, path in step.figures.items())
    return Markup(
        '<section class="step" id="step-{name}" aria-labelledby="step-{name}-head">\n'
        '<h3 id="step-{name}-head">{name} <span class="stage">{stage}</span> {badge}</h3>\n'
        "{error}\n{facts}\n{metrics}\n"
        '<div class="figures">{figures}</div>\n{pages}\n{config}\n</section>'
    ).format(
        name=step.name,
        stage=step.stage,
        badge=badge(step.state),
        error=error,
        facts=facts(rows),
        metrics=_metrics(step.metrics),
        figures=figures,
        pages=Markup("\n").join(_page(name, path) for name, path in step.pages.items()),
        config=folded("Configuration", _yaml_like(step.config)) if step.config else "",
    )


def _metrics(metrics: Mapping[str, float]) -> Markup:
    cells = Markup("").join(
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(name.replace("_", " "), metric(name, value))
        for name, value in metrics.items()
    )
    return Markup('<dl class="metrics">{}</dl>').format(cells) if metrics else Markup("")


def _figure(name: str, path: Path) -> Markup:
    title = name.replace("_", " ")
    content = _content(path)
    if not content.startswith(b"\x89PNG"):
        return Markup("<p>The figure <em>{}</em> can't be shown: {}</p>").format(title, str(path))
    data = base64.b64encode(content).decode()
    return Markup(
        '<figure><img alt="Plot: {0}" src="data:image/png;base64,{1}"><figcaption>{0}</figcaption></figure>'
    ).format(title, data)


def _page(name: str, path: Path) -> Markup:
    """A page in a frame in which no script runs and from which nothing is asked for; Markdown as it is written."""
    title = Path(name).stem.replace("_", " ")
    text = _content(path).decode(errors="replace")
    if not text:
        return Markup("<p>The page <em>{}</em> can't be shown: {}</p>").format(name, str(path))
    if not name.endswith(".html"):
        return folded(f"Page: {title}, as text", text)
    return Markup(
        '<details><summary>Page: {0}</summary><iframe title="{0}" sandbox srcdoc="{1}"></iframe></details>'
    ).format(title, text)


def _content(path: Path) -> bytes:
    """The content of a file; None if it can't be read or is too large to show."""
    try:
        return path.read_bytes() if path.stat().st_size <= LARGEST_FIGURE_BYTES else b""
    except OSError:
        return b""


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


# ---------------------------------------------------------------------------------------------------------------
# Small pieces


def _headline(step: StepSummary) -> Markup | str:
    if step.headline is None:
        return ""
    return Markup("{} <strong>{}</strong>").format(step.headline[0].replace("_", " "), metric(*step.headline))


def _yaml_like(config: Mapping[str, object], indent: str = "") -> str:
    """Nested values as indented lines for people, not for parsing."""
    lines = []
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            lines += [f"{indent}{name}:", _yaml_like(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {value}")
    return "\n".join(lines)
