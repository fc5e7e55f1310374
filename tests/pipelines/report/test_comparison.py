"""The report says what changed since the run before, and what that did to the results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipelines import run_history
from pipelines.report.comparison import comparison
from pipelines.run_record import RunRecord
from pipelines.summary import RunSummary
from tests.pipelines import samples
from tests.pipelines.test_report import EVIL, Page


def record(run: RunSummary) -> RunRecord:
    return run_history.record_of(run, {step.name: step for step in run.steps}, {})


def test_changed_values_and_results_stand_side_by_side(tmp_path: Path) -> None:
    before = samples.run(tmp_path, run_id="run-0", name="demo")
    corpus, pretrain, *others = before.steps
    changed = replace(
        pretrain, config={**pretrain.config, "learning_rate": 0.01}, headline=("validation_loss", 2.0), metrics={}
    )
    now = replace(before, run_id="run-1", git_commit="f" * 40, git_dirty=False, steps=(corpus, changed, *others))
    page = Page(str(comparison(now, record(before), str)))
    cells = [line for line in page.text.replace("\n", " ").split("  ") if line.strip()]
    said = " ".join(cells)
    for wanted in (
        "pretrain.learning_rate0.0010.01",
        "commit0123456789ab with uncommitted changesffffffffffff",
        "pretrain: validation loss2.52-20.0%",
    ):
        assert wanted in said
    assert "bloomline runs diff run-0 run-1" in said


def test_two_equal_runs_are_the_same(tmp_path: Path) -> None:
    run = samples.run(tmp_path)
    text = Page(str(comparison(run, record(run), str))).text
    assert "The configuration, the commit and the versions are the same." in text
    assert "The results are the same." in text


def test_a_first_run_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    assert comparison(samples.run(tmp_path), None, str) == ""


def test_values_are_text_and_long_ones_are_cut(tmp_path: Path) -> None:
    run = samples.run(tmp_path)
    before = replace(run, steps=(replace(run.steps[0], config={EVIL: EVIL, "long": "x" * 999}), *run.steps[1:]))
    page = Page(str(comparison(run, record(before), str)))
    assert not {tag for tag, _ in page.tags} & {"img", "script"}
    assert EVIL in page.text
    assert "x" * 161 not in page.text
