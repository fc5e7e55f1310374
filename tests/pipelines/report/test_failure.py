"""What failed stands at the top of the report, with what helps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipelines.report.failure import LARGEST_TRACEBACK_BYTES, failure_box
from pipelines.report.page import render
from pipelines.summary import RunSummary
from tests.pipelines import samples
from tests.pipelines.test_report import EVIL, Page


def failed(directory: Path, **fields: object) -> RunSummary:
    """A run whose second step failed."""
    sample = samples.run(directory, state="failed", places=("store.root=other",))
    step = replace(sample.steps[1], state="failed", artifact=None, **fields)  # type: ignore[arg-type]
    return replace(sample, steps=(sample.steps[0], step))


def test_the_box_has_the_error_the_frames_the_traceback_and_the_commands(tmp_path: Path) -> None:
    trace = tmp_path / "pretrain.traceback.txt"
    trace.write_text("Traceback (most recent call last):\nValueError: bad")
    run = failed(tmp_path, error="rank 1 of 2: bad", frames="own/words.py:20 in clean", traceback=trace)
    box = Page(failure_box(run))
    for wanted in (
        "pretrain failed",
        "rank 1 of 2: bad",
        "own/words.py:20 in clean",
        "ValueError: bad",
        "bloomline run pipeline=demo",
        "bloomline logs run-1 pretrain store.root=other",
    ):
        assert wanted in box.text
    assert ("aside", {"class": "failure", "role": "alert"}) in box.tags
    silent = Page(failure_box(replace(run, silent=("pretrain",))))
    assert "What it printednothing" in silent.text
    assert "bloomline logs" not in silent.text
    page = render(run)
    assert page.index("</header>") < page.index('class="failure"') < page.index('id="graph"')


def test_a_run_without_a_failure_has_no_box(tmp_path: Path) -> None:
    assert failure_box(samples.run(tmp_path)) == ""


def test_what_an_error_says_is_text(tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    trace.write_text(EVIL)
    box = Page(failure_box(replace(failed(tmp_path, error=EVIL, frames=EVIL, traceback=trace), command=EVIL)))
    assert {tag for tag, _ in box.tags} <= {"aside", "h2", "a", "p", "pre", "dl", "div", "dt", "dd", "code"} | {
        "details",
        "summary",
    }


def test_a_traceback_that_is_gone_or_huge_raises_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    run = failed(tmp_path, error="bad", traceback=trace)
    assert "can't be read" in Page(failure_box(run)).text
    trace.write_bytes(b"\xff" * (2 * LARGEST_TRACEBACK_BYTES) + b"the end")
    box = failure_box(run)
    assert len(box) < 2 * LARGEST_TRACEBACK_BYTES
    assert "the end" in box
