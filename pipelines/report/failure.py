"""What failed, at the top of a report: the step, its error, where it was raised, and the commands that help."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from pipelines import failure
from pipelines.report.html import folded
from pipelines.report.paths import Shorten
from pipelines.summary import RunSummary, StepSummary

LARGEST_TRACEBACK_BYTES = 1 << 20  # of which the end is shown: it says what was raised


def failure_box(run: RunSummary, shorten: Shorten = str) -> Markup:
    """One box for each failed step; nothing if none failed. `shorten`: for the paths in a traceback."""
    failed = [step for step in run.steps if step.state == "failed"]
    return Markup("\n").join(_box(run, step, shorten) for step in failed)


def _box(run: RunSummary, step: StepSummary, shorten: Shorten) -> Markup:
    frames = Markup("<pre>{}</pre>").format(step.frames) if step.frames else ""
    return Markup(
        '<aside class="failure" role="alert">\n<h2><a href="#step-{name}">{name}</a> failed</h2>\n'
        '<p class="what">{error}</p>\n{frames}\n'
        "<dl><div><dt>Continue</dt><dd><code>{again}</code></dd></div>"
        "<div><dt>What it printed</dt><dd>{printed}</dd></div></dl>\n{trace}\n</aside>"
    ).format(
        name=step.name,
        error=step.error or "",
        frames=frames,
        again=run.command,
        printed="nothing"
        if step.name in run.silent
        else Markup("<code>{}</code>").format(failure.logs_command(run, step)),
        trace=_whole(step.traceback, shorten) if step.traceback else "",
    )


def _whole(path: Path, shorten: Shorten) -> Markup:
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - LARGEST_TRACEBACK_BYTES, 0))
            return folded("The whole traceback", shorten(file.read().decode(errors="replace")))
    except OSError:
        return Markup("<p>The whole traceback was in {}, which can't be read.</p>").format(shorten(str(path)))
