"""What stands under the title of a report: the verdict, how to repeat the run, where MLflow has it, and its facts."""

from __future__ import annotations

import time

from markupsafe import Markup

from pipelines import failure
from pipelines.formatting import duration, quantity
from pipelines.report.html import WORDS, facts
from pipelines.report.paths import Shorten
from pipelines.summary import RunSummary, StepSummary
from stages.base import VERDICT


def result(run: RunSummary, store: str, shorten: Shorten) -> Markup:
    """The section. `store`: the address of the store's root."""
    # After a failure, the same command is next to what failed.
    repeat = {} if run.state == "failed" else {"Repeat": Markup("<code>{}</code>").format(run.command)}
    commands = {**repeat, "MLflow": _mlflow(run)}
    return Markup('<section id="result" aria-label="Result">\n{}\n{}\n{}\n</section>').format(
        _verdicts(run), facts(commands), facts(_facts(run, shorten(store)))
    )


def _verdicts(run: RunSummary) -> Markup:
    """What steps state of their results; of a finished run in which none does, the headlines of its last steps."""
    stated = [(step, step.highlights[VERDICT]) for step in run.steps if step.highlights.get(VERDICT)]
    if stated:
        return Markup("\n").join(_verdict(step, text, len(stated) > 1) for step, text in stated)
    read = {name for step in run.steps for name in step.inputs}
    last = [step for step in run.steps if step.name not in read and step.headline]
    said = "; ".join(f"{step.name}: {' '.join(quantity(*step.headline))}" for step in last if step.headline)
    return Markup('<p class="verdict">{}</p>').format(said) if said and run.state == "done" else Markup("")


def _verdict(step: StepSummary, text: str, several: bool) -> Markup:
    said, _, cautions = text.strip().partition("\n")
    name = Markup('<a href="#step-{0}">{0}</a>: ').format(step.name) if several else ""
    cautioned = Markup('<p class="caution">{}</p>').format(cautions) if cautions else ""
    return Markup('<p class="verdict">{}{}</p>{}').format(name, said, cautioned)


def _mlflow(run: RunSummary) -> Markup:
    if run.tracking_url is None:
        return Markup("<code>{}</code>").format(failure.ui_command(run))
    return Markup('<a href="{0}" rel="noreferrer">{0}</a>').format(run.tracking_url)


def _facts(run: RunSummary, store: str) -> dict[str, object]:
    commit = "not in a git checkout"
    if run.git_commit:
        commit = run.git_commit[:12] + (" with uncommitted changes" if run.git_dirty else "")
    counts = {state: sum(step.state == state for step in run.steps) for state in WORDS}
    found: dict[str, object] = {
        "Began": time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(run.started)),
        "Took": duration(run.seconds),
        "Steps": ", ".join(f"{count} {WORDS[state]}" for state, count in counts.items() if count),
        "Commit": commit,
        "Run": run.run_id,
    }
    return found | ({"Store": store} if store else {})
