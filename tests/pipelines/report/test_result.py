"""What a person reads first: the verdict, how to repeat the run, and where MLflow has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.report.page import render
from pipelines.report.result import result
from pipelines.summary import RunSummary
from stages.base import VERDICT
from tests.pipelines import samples
from tests.pipelines.test_report import EVIL, Page


def judged(directory: Path, text: str) -> RunSummary:
    """A run whose last step states a verdict."""
    sample = samples.run(directory)
    return replace(sample, steps=(*sample.steps[:-1], replace(sample.steps[-1], highlights={VERDICT: text})))


def test_the_verdict_leads_and_is_said_once(tmp_path: Path) -> None:
    run = judged(tmp_path, "2 bits per byte, 9.0% better than xz -9 (2.2)\nOnly 6 kB of text.")
    page = Page(render(run, "/data/store"))
    assert page.text.count("9.0% better than xz -9") == 1
    assert ("p", {"class": "caution"}) in page.tags
    assert (
        page.text.index("9.0% better")
        < page.text.index("bloomline run pipeline=demo")
        < page.text.index("The steps of the pipeline")
    )
    assert "/data/store" in page.text


@pytest.mark.parametrize(("state", "shown"), [("done", True), ("failed", False)])
def test_without_a_verdict_the_headlines_of_the_last_steps_lead_a_finished_run(
    state: str, shown: bool, tmp_path: Path
) -> None:
    sample = samples.run(tmp_path, state=state)
    steps = (*sample.steps[:-1], replace(sample.steps[-1], headline=("time_to_first_token_ms", 20.0)))
    text = Page(str(result(replace(sample, steps=steps), "", str))).text
    assert ("deploy: time to first token 20 ms" in text) is shown


def test_mlflow_is_a_link_to_a_server_or_a_command_for_a_local_database(tmp_path: Path) -> None:
    local = samples.run(tmp_path, places=("store.root=other",))
    assert "bloomline ui store.root=other" in Page(str(result(local, "", str))).text
    address = "http://mlflow:5000/#/experiments/1/runs/2"
    links = [
        found["href"]
        for tag, found in Page(str(result(replace(local, tracking_url=address), "", str))).tags
        if tag == "a"
    ]
    assert links == [address]


def test_a_verdict_is_text(tmp_path: Path) -> None:
    page = Page(str(result(judged(tmp_path, f"{EVIL}\n{EVIL}"), EVIL, str)))
    assert page.text.count(EVIL) == 3
    assert not {tag for tag, _ in page.tags} & {"img", "script"}
