"""What a store remembers of runs."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.base import Message
from pipelines import run_history
from pipelines.curves import LONGEST_CURVE, GrowingCurve, continued
from pipelines.errors import BloomlineError
from pipelines.run_history import History
from pipelines.store import Store
from tests.pipelines import samples
from tests.pipelines.samples import remember


def test_a_run_is_remembered_with_its_curves(store: Store, tmp_path: Path) -> None:
    remember(store, tmp_path, "20260101-000000-aaaa", name="demo · size=3", user="ada", parameters={"a.size": "3"})
    (run,) = run_history.runs(store)
    assert (run.name, run.state, run.user, run.parameters) == ("demo · size=3", "done", "ada", {"a.size": "3"})
    assert run.headlines() == {"pretrain.validation_loss": 2.5}
    assert run_history.curves(store, run, "pretrain") == {"training_loss": [(at, 19.0 - at) for at in range(20)]}
    with pytest.raises(BloomlineError, match=r"has no step 'pretrian'\. Did you mean 'pretrain'\?"):
        run.step("pretrian")


def test_the_curves_of_a_cached_step_are_those_of_the_run_that_made_it(store: Store, tmp_path: Path) -> None:
    remember(store, tmp_path, "first")
    sample = samples.run(tmp_path, "second")
    steps = tuple(replace(step, state="cached", cached_from="first") for step in sample.steps)
    remember(store, tmp_path, "second", steps=steps)
    second = run_history.find(store, "second")
    assert len(run_history.curves(store, second, "pretrain")["training_loss"]) == 20


@given(st.integers(2, 5000))
def test_a_long_curve_is_thinned_out_evenly_and_keeps_its_ends(count: int) -> None:
    curve = GrowingCurve()
    for at in range(count):
        curve.add(at, 1.0)
    kept = curve.points()
    assert len(kept) <= LONGEST_CURVE
    gaps = {after[0] - before[0] for before, after in pairwise(kept[:-1])}
    assert len(gaps) <= 1
    assert (kept[0][0], kept[-1][0]) == (0, count - 1)


def test_curves_have_what_a_run_did_before_it_was_continued(store: Store, tmp_path: Path) -> None:
    """Point 15 was done by both, as after a checkpoint at 14; the first two runs were stopped."""
    ours, other = "1" * 64, "0" * 64
    for run_id, first, end, made in (("1", 0, 10, ours), ("2", 10, 16, ours), ("3", 0, 30, other), ("4", 15, 20, ours)):
        sample = samples.run(tmp_path, run_id, state="done" if run_id == "4" else "stopped")
        step = replace(sample.steps[1], state=sample.state, fingerprint=made)
        history = History(store)
        history.run_started(replace(sample, state="running"))
        history.step_started(replace(step, state="running"))
        for at in range(first, end):
            values = {"loss": float(run_id), **({"validation": 0.0} if at % 9 == 0 else {})}
            history.step_message(Message("pretrain", "metrics", {"values": values, "at": at}))
        history.step_finished(step, None)
        history.run_finished(replace(sample, steps=(sample.steps[0], step)))
    found = run_history.curves(store, run_history.find(store, "4"), "pretrain")
    assert found["loss"] == [(at, 1.0 if at < 10 else 2.0 if at < 15 else 4.0) for at in range(20)]
    assert found["validation"] == [(0, 0.0), (9, 0.0), (18, 0.0)]


def test_a_curve_of_many_runs_stays_bounded_and_even() -> None:
    whole: dict[str, list[tuple[int, float]]] = {}
    for first in range(0, 20_000, 900):
        whole = continued(whole, {"loss": [(at, float(at)) for at in range(first, first + 900)]})
    points = whole["loss"]
    assert 400 < len(points) <= LONGEST_CURVE
    assert (points[0][0], points[-1][0]) == (0, first + 899)
    assert max(after[0] - before[0] for before, after in pairwise(points)) < 100
    assert continued({"loss": [(1, 5.0), (2, 4.0)], "late": [(1, 0.0), (7, 0.0)]}, {"loss": [(2, 3.0)]}) == {
        "loss": [(1, 5.0), (2, 3.0)],
        "late": [(1, 0.0)],
    }


def test_a_run_whose_process_is_gone_was_killed(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(store)
    history.run_started(samples.run(tmp_path, "one", state="running"))
    assert run_history.runs(store)[0].state == "running"
    with monkeypatch.context() as patch:
        patch.setattr(run_history, "is_gone", lambda driver: True)
        assert run_history.runs(store)[0].state == "killed"
    monkeypatch.setattr(run_history, "LOST_S", -1.0)  # no heartbeat, of a driver of which nothing is known here
    monkeypatch.setattr(run_history, "is_gone", lambda driver: False)
    assert run_history.runs(store)[0].state == "killed"
    history.close()  # the driver is there after all, and something else than a step has broken
    assert run_history.runs(store)[0].state == "failed"


def test_a_store_that_hangs_does_not_hold_the_run_up(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_history, "SAVE_INTERVAL_S", 0.01)
    history, writing, answers = History(store), threading.Event(), threading.Event()
    sample = samples.run(tmp_path, "one", state="running")
    history.run_started(sample)

    def hang(path: str, content: bytes) -> None:
        writing.set()
        answers.wait(60)

    with monkeypatch.context() as patch:
        patch.setattr(store.files, "write", hang)
        history.step_finished(sample.steps[0], None)
        assert writing.wait(60)
        history.step_finished(sample.steps[-1], None)  # returns while the store hangs
        assert not answers.is_set()
        answers.set()
        history.close()


def test_the_curves_and_the_progress_of_a_running_step_are_in_the_store(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_history, "SAVE_INTERVAL_S", 0.01)
    sample = samples.run(tmp_path, "one", state="running")
    history = History(store)
    history.run_started(sample)
    try:
        history.step_started(replace(samples.waiting(sample.steps[1]), state="running"))
        history.step_message(Message("pretrain", "progress", {"done": 3, "total": 20, "unit": "steps"}))
        for value, count in ((2.0, 2), (math.nan, 3)):
            for message in samples.points("pretrain", count, count - 1 if count > 2 else 0):
                history.step_message(replace(message, body={**message.body, "values": {"loss": value}}))
            while len(run_history.curves(store, run_history.runs(store)[0], "pretrain").get("loss", [])) < count:
                time.sleep(0.01)
        run = run_history.find(store, "one")
        assert (run.state, run.step("pretrain").progress) == ("running", (3.0, 20.0, "steps"))
    finally:
        history.close()


def test_what_a_store_did_not_take_is_written_later(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_history, "SAVE_INTERVAL_S", 0.01)
    sample = samples.run(tmp_path, "one")
    history = History(store)
    history.run_started(replace(sample, state="running"))
    write = store.files.write
    refused: list[str] = []

    def refuse_once(path: str, content: bytes) -> None:
        if "curves" in path and not refused:
            refused.append(path)
            raise OSError("the store is away")
        write(path, content)

    monkeypatch.setattr(store.files, "write", refuse_once)
    for message in samples.points("pretrain", 20):
        history.step_message(message)
    history.step_finished(sample.steps[1], None)
    while not refused:
        time.sleep(0.01)
    history.run_finished(sample)
    assert len(run_history.curves(store, run_history.find(store, "one"), "pretrain")["training_loss"]) == 20
    assert history._curves == {}


def test_a_run_is_found_by_a_part_of_its_id(store: Store, tmp_path: Path) -> None:
    for run_id in ("20260101-000000-aaaa", "20260102-000000-bbbb"):
        remember(store, tmp_path, run_id)
    assert run_history.find(store, "aaaa").run_id == "20260101-000000-aaaa"
    assert run_history.find(store, "20260102").run_id == "20260102-000000-bbbb"
    assert run_history.find(store, "latest").run_id in ("20260101-000000-aaaa", "20260102-000000-bbbb")
    with pytest.raises(BloomlineError, match=r"2 runs .* Write more of it"):
        run_history.find(store, "2026")
    with pytest.raises(BloomlineError, match=r"no run 'cccc'.*`bloomline runs` lists them"):
        run_history.find(store, "cccc")


def test_the_id_of_a_sweep_is_said_to_be_one(store: Store, tmp_path: Path) -> None:
    sweep = "20260101-000000-cafe"
    for run_id in ("20260101-000001-aaaa", "20260101-000002-bbbb"):
        remember(store, tmp_path, run_id, sweep=sweep)
    for name in (sweep, "cafe"):
        with pytest.raises(BloomlineError) as refused:
            run_history.find(store, name)
        expected = f"{name} is a sweep, not a run. `bloomline runs list sweep={sweep}` lists its runs."
        assert str(refused.value) == expected


def test_the_run_before_is_the_latest_finished_one_of_the_pipeline(store: Store, tmp_path: Path) -> None:
    remember(store, tmp_path, "1", curve=2)
    remember(store, tmp_path, "2", curve=2, state="failed")
    remember(store, tmp_path, "3", curve=2, pipeline="other")
    remember(store, tmp_path, "4", curve=2, sweep="s")
    remember(store, tmp_path, "9", curve=2)

    def before(**fields: object) -> str | None:
        found = run_history.before(store, samples.run(tmp_path, **fields))  # type: ignore[arg-type]
        return found.run_id if found else None

    assert before(run_id="5") == "4"
    assert before(run_id="5", sweep="s") == "1"
    assert before(run_id="1") is None


def test_a_record_that_was_cut_is_named_and_the_others_are_found(store: Store, tmp_path: Path) -> None:
    remember(store, tmp_path, "whole", curve=2)
    remember(store, tmp_path, "cut", curve=2)
    content = store.files.read("runs/cut/run.json")
    assert content is not None
    store.files.write("runs/cut/run.json", content[:100])
    found, damaged = run_history.records(store)
    assert [run.run_id for run in found] == ["whole"]
    assert damaged == [store.files.uri("runs/cut/run.json")]
    with pytest.raises(BloomlineError, match=r"runs/cut/run.json can't be read: .* Its artifacts are not"):
        run_history.find(store, "cut")
