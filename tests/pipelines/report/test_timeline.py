"""The timeline shows every attempt where it was, and marks what was cached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.report.timeline import axis_marks, timeline
from pipelines.summary import Attempt, RunSummary
from tests.pipelines import samples
from tests.pipelines.test_report import EVIL, Page


def timed(directory: Path) -> RunSummary:
    """A run of 100 s: a cached step, one that failed once and was then done, and one that failed."""
    sample = samples.run(directory, started=1000.0, seconds=100.0)
    corpus, pretrain, quantize, _ = sample.steps
    return replace(
        sample,
        steps=(
            replace(corpus, state="cached", reason="by run 7"),
            replace(pretrain, seconds=30.0, attempts=(Attempt(1010, 1020, "lost"), Attempt(1020, 1060, "done"))),
            replace(quantize, state="failed", seconds=20.0, attempts=(Attempt(1060, 1080, "done"),)),
        ),
    )


def test_every_attempt_is_a_bar_at_its_time(tmp_path: Path) -> None:
    page = Page(str(timeline(timed(tmp_path))))
    drawn = [attributes["class"] for tag, attributes in page.tags if tag == "g"]
    assert drawn == ["cached", "lost", "done", "failed"]
    bars = [(found["x"], found["width"]) for tag, found in page.tags if tag == "rect" and "class" not in found]
    assert bars[1:] == [("10.000%", "10.000%"), ("30.000%", "30.000%"), ("60.000%", "20.000%")]
    starting = [found["x"] for tag, found in page.tags if tag == "rect" and found.get("class") == "starting"]
    assert starting == ["10.000%", "20.000%", "60.000%"]
    for wanted in (
        "corpus: by run 7",
        "30.0 s, 2 attempts",
        "failed after 20.0 s",
        "the start of its process the rest",
    ):
        assert wanted in page.text


def test_a_run_in_which_nothing_started_has_none(tmp_path: Path) -> None:
    assert timeline(samples.run(tmp_path)) == ""


def test_names_are_text(tmp_path: Path) -> None:
    run = timed(tmp_path)
    evil = replace(run, steps=tuple(replace(step, name=EVIL, reason=EVIL) for step in run.steps))
    assert {tag for tag, _ in Page(str(timeline(evil))).tags} == {tag for tag, _ in Page(str(timeline(run))).tags}


@pytest.mark.parametrize(
    ("seconds", "labels"),
    [
        (0.4, ["0"]),
        (85, ["0", "20 s", "40 s", "60 s", "80 s"]),
        (600, ["0", "2 min", "4 min", "6 min", "8 min", "10 min"]),
        (5400, ["0", "0:20 h", "0:40 h", "1:00 h", "1:20 h"]),
        (40_000, ["0", "2 h", "4 h", "6 h", "8 h", "10 h"]),
        (20 * 86_400, ["0", "96 h", "192 h", "288 h", "384 h", "480 h"]),
    ],
)
def test_the_axis_has_few_round_marks(seconds: float, labels: list[str]) -> None:
    assert [label for _, label in axis_marks(seconds)] == labels
