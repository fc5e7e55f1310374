"""One step of a report: the metrics that matter, its figures, facts of its artifact, its pages, and the rest folded."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path

from markupsafe import Markup

from pipelines.formatting import duration, quantity, size
from pipelines.metric_groups import group_of, leading
from pipelines.report.html import badge, facts, folded
from pipelines.summary import StepSummary

LARGEST_FIGURE_BYTES = 8 << 20  # and of a page
MOST_FACTS = 12


def step_section(step: StepSummary) -> Markup:
    """The step as a section with the anchor `#step-NAME`. A file that can't be read is named instead of shown."""
    error = Markup('<div class="error" role="alert"><pre>{}</pre></div>').format(step.error) if step.error else ""
    figures = Markup("\n").join(_figure(step.name, name, path) for name, path in step.figures.items())
    parts = [
        error,
        _leading_metrics(step),
        Markup('<div class="figures">{}</div>').format(figures) if figures else "",
        facts(_facts(step)),
        _other_metrics(step),
        *(_page(name, path) for name, path in step.pages.items()),
        _nested_facts(step),
        folded("Configuration", yaml_like(step.config)) if step.config else "",
    ]
    return Markup(
        '<section class="step" id="step-{0}" aria-labelledby="step-{0}-head">\n'
        '<h3 id="step-{0}-head">{0}{1} {2}</h3>\n{3}\n</section>'
    ).format(step.name, stage_of(step), badge(step.state), Markup("\n").join(part for part in parts if part))


def stage_of(step: StepSummary) -> Markup:
    """The stage of a step, if its name is another one than the step's."""
    return Markup("") if step.stage == step.name else Markup(' <span class="stage">{}</span>').format(step.stage)


def yaml_like(config: Mapping[str, object], indent: str = "") -> str:
    """Nested values as indented lines for people, not for parsing."""
    lines = []
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            lines += [f"{indent}{name}:", yaml_like(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {value}")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------
# Metrics


def _leading(step: StepSummary) -> list[str]:
    return leading(step.metrics, step.headline[0] if step.headline else None)


def _leading_metrics(step: StepSummary) -> Markup:
    cells = Markup("").join(
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(*quantity(name, step.metrics[name]))
        for name in _leading(step)
    )
    return Markup('<dl class="metrics">{}</dl>').format(cells) if cells else Markup("")


def _other_metrics(step: StepSummary) -> Markup:
    """The metrics that are not among the leading ones, in the groups of `metric_groups`."""
    shown = _leading(step)
    groups: dict[str, list[str]] = {}
    for name in step.metrics:
        if name not in shown:
            groups.setdefault(group_of(name), []).append(name)
    if not groups:
        return Markup("")
    ordered = sorted(groups, key=lambda group: (group == "", group))
    count = sum(map(len, groups.values()))
    return Markup("<details><summary>{}</summary>{}</details>").format(
        f"{count} more metric{'s' if count > 1 else ''}",
        Markup("\n").join(_group(group, groups[group], step.metrics) for group in ordered),
    )


def _group(group: str, names: Iterable[str], metrics: Mapping[str, float]) -> Markup:
    rows = facts(dict(quantity(name, metrics[name]) for name in names))
    return Markup('<h4>{}</h4><div class="group">{}</div>').format(
        group.replace("_", " ").replace("/", " / ") or "other", rows
    )


# ---------------------------------------------------------------------------------------------------------------
# The artifact


def _facts(step: StepSummary) -> dict[str, object]:
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
    if plain := _plain_facts(step):
        rows["Facts"] = Markup(" ").join(
            Markup('<span class="fact">{} <b>{}</b></span>').format(label, value) for label, value in plain
        )
    rows["Fingerprint"] = Markup("<code>{}</code>").format(step.fingerprint)
    return rows


def _plain_facts(step: StepSummary) -> list[tuple[str, str]]:
    """Names and values that the artifact states and neither a leading metric nor the configuration has."""
    metrics = _leading(step)
    found = [
        (name.replace("_", " "), text)
        for name, value in step.facts.items()
        if name not in metrics and name != "bytes" and step.config.get(name) != value
        if (text := _text_of(name, value))
    ]
    return found[:MOST_FACTS]


def _text_of(name: str, value: object) -> str:
    """A fact that fits in a line; "" for any other."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return quantity(name, value)[1]
    if isinstance(value, list) and value and all(isinstance(one, int) for one in value):
        return "/".join(map(str, value))
    return value if isinstance(value, str) and len(value) <= 80 else ""


def _nested_facts(step: StepSummary) -> Markup:
    nested = {name: value for name, value in step.facts.items() if isinstance(value, Mapping) and value}
    return folded("More about the artifact", yaml_like(nested)) if nested else Markup("")


# ---------------------------------------------------------------------------------------------------------------
# Figures and pages


def _figure(step: str, name: str, path: Path) -> Markup:
    """A figure, which its own anchor enlarges to the whole window: the style sheet does that, without a script."""
    title = name.replace("_", " ")
    content = _content(path)
    if not content.startswith(b"\x89PNG"):
        return Markup("<p>The figure <em>{}</em> can't be shown: {}</p>").format(title, path.name)
    return Markup(
        '<div id="place-{0}"><figure class="zoomable" id="figure-{0}">'
        '<a href="#figure-{0}" title="Enlarge"><img alt="Plot: {1}" src="data:image/png;base64,{2}"></a>'
        '<figcaption>{1}</figcaption><a class="close" href="#place-{0}">Close</a></figure></div>'
    ).format(f"{step}-{name}", title, base64.b64encode(content).decode())


def _page(name: str, path: Path) -> Markup:
    """A page in a frame in which no script runs and from which nothing is asked for; Markdown as it is written."""
    title = Path(name).stem.replace("_", " ")
    text = _content(path).decode(errors="replace")
    if not text:
        return Markup("<p>The page <em>{}</em> can't be shown: {}</p>").format(name, path.name)
    if not name.endswith(".html"):
        return folded(f"Page: {title}, as text", text)
    return Markup(
        '<details><summary>Page: {0}</summary><iframe title="{0}" sandbox srcdoc="{1}"></iframe></details>'
    ).format(title, text)


def _content(path: Path) -> bytes:
    """The content of a file; nothing if it can't be read or is too large to show."""
    try:
        return path.read_bytes() if path.stat().st_size <= LARGEST_FIGURE_BYTES else b""
    except OSError:
        return b""
