"""Descriptions in MLflow, in Markdown: of an experiment, a run, and a version of a registered model.

The links of a table lead to runs whose ids only MLflow knows. A description therefore holds cells, and becomes a text
when it is sent.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.summary import RunSummary, StepSummary

LONGEST = 8000  # characters, of a tag in MLflow
CELLS = (200, 60, 20)  # characters of a cell: the most that lets the whole text fit
COLUMNS = ("step", "stage", "state", "time", "headline", "why")
LINEAGE_COLUMNS = ("step", "stage", "headline", "fingerprint", "artifact")

Description = Mapping[str, Any]  # JSON values: {"head": str, "columns": [str], "rows": [row], "tail": str}


def of_experiment(run: RunSummary) -> str:
    """The description of the experiment in which the runs of a pipeline are."""
    steps = ", ".join(step.name if step.name == step.stage else f"{step.name} ({step.stage})" for step in run.steps)
    return (
        f"Runs of the pipeline **{run.pipeline}**. The description of a run has a table of all of its steps. A step "
        "that ran has its own run below that of the pipeline; a cached step is a link to the run that made it.\n\n"
        f"Steps: {steps}"
    )[:LONGEST]


def of_run(run: RunSummary) -> Description:
    """The description of a run: what one wants to read first."""
    states = [step.state for step in run.steps]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    after = "" if run.state == "running" else f" after {run.seconds:.0f} s"
    notes = "".join(f"> {text}\n" for text in run.notes)
    rows = [
        _row(step, (step.stage, step.state, _seconds(step), _headline(step), step.error or step.reason))
        for step in run.steps
    ]
    return {
        "head": f"**{run.pipeline}**: {run.state}{after}. Steps: {counts}.",
        "columns": COLUMNS,
        "rows": rows,
        "tail": f"{notes}\nAgain: `{run.command}`",
    }


def of_step(step: StepSummary) -> str:
    """The description of a step that has ended: its error, or what came out and where it is."""
    if step.error:
        return f"Stage `{step.stage}`: {step.state}.\n\n{step.error}"
    headline, seconds = _headline(step), _seconds(step)
    parts = [f"Stage `{step.stage}`: {step.state}{f' in {seconds}' if seconds else ''}."]
    parts += [f"**{headline}**"] if headline else []
    parts += [f"Artifact: {step.artifact_type} at `{step.artifact}`"] if step.artifact else []
    return "\n\n".join([*parts, *(f"**{title}**\n\n{text}" for title, text in step.highlights.items())])


def of_version(
    run: RunSummary, model: StepSummary, lineage: Sequence[StepSummary], metrics: Mapping[str, float], name: str
) -> Description:
    """The description of a version of a registered model: its measures, and what it was made from.

    `lineage`: the model's step and all before it. `metrics`: by "step.metric".
    """
    changed = " with uncommitted changes" if run.git_dirty else ""
    commit = f", commit `{run.git_commit[:12]}`{changed}" if run.git_commit else ""
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started))
    by = f" by {run.user}" if run.user else ""
    measured = "".join(f"| {_cell(key, 100)} | {value:.5g} |\n" for key, value in metrics.items())
    rows = [_row(step, (step.stage, _headline(step), step.fingerprint[:12], step.artifact or "")) for step in lineage]
    use = f'mlflow.pyfunc.load_model("models:/{name}/VERSION")'
    origin = f"Step **{model.name}** of the pipeline **{run.pipeline}**, [run {run.name or run.run_id}](RUN), "
    origin += f"{made}{by}{commit}."
    return {
        "head": origin
        + (f"\n\n| measure | value |\n|---|---|\n{measured}" if measured else "")
        + "\n\nMade by these steps:",
        "columns": LINEAGE_COLUMNS,
        "rows": rows,
        "tail": f"Use: `{use}`" if model.predictor else "",
    }


def render(description: Description, links: Mapping[str, str], run: str) -> str:
    """The Markdown of a description, within the length that MLflow takes.

    `links`: the addresses of the runs of steps, by the step's name. `run`: that of the run itself.
    """
    head = description["head"].replace("](RUN)", f"]({run})")
    columns = description["columns"]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for longest in CELLS:
        rows = [_line(row, links, longest) for row in description["rows"]]
        text = "\n".join([head, "", *lines, *rows, "", description["tail"]])
        if len(text) <= LONGEST:
            return text
    room = LONGEST - 100
    return text[: text.rfind("\n", 0, room)] + "\n\nThe table is cut: all steps are in report.html."


def _row(step: StepSummary, cells: Iterable[str]) -> dict[str, Any]:
    return {"step": step.name, "fingerprint": step.fingerprint, "made_by": step.cached_from, "cells": list(cells)}


def _line(row: Mapping[str, Any], links: Mapping[str, str], longest: int) -> str:
    name, link = _cell(row["step"], longest), links.get(row["step"])
    cells = [f"[{name}]({link})" if link else name, *(_cell(cell, longest) for cell in row["cells"])]
    return f"| {' | '.join(cells)} |"


def _cell(text: str, longest: int) -> str:
    line = re.sub(r"\s+", " ", text)
    return (line if len(line) <= longest else line[: longest - 1] + "…").replace("|", "\\|")


def _seconds(step: StepSummary) -> str:
    return "" if step.seconds is None else f"{step.seconds:.1f} s"


def _headline(step: StepSummary) -> str:
    return "" if step.headline is None else f"{step.headline[0]} {step.headline[1]:.4g}"
