"""What a killed run printed last: the next run of its pipeline keeps it without secrets, `artifacts gc` removes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import redaction, run_history
from pipelines.logs import leftovers
from pipelines.logs.collector import Collector
from pipelines.logs_config import LogsConfig
from pipelines.store import Store
from tests.pipelines import samples
from tests.pipelines.logs.test_collector import RUN, collected, print_to, raw


@pytest.fixture
def killed(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run of the pipeline `demo` that was killed while one of its steps printed; the directory of its output."""
    samples.leave_running(store, samples.run(tmp_path, RUN, state="running", pipeline="demo"))
    print_to(raw(store, "train", "step"), "one\ntwo\n")
    Collector(LogsConfig(), store, RUN)._collect(False)
    monkeypatch.setattr(run_history, "is_gone", lambda driver: True)
    redaction.remember({"password": "a long secret"}, {"password": "***"})
    yield store.config.state / "runs" / RUN / "output"
    redaction._hidden.pop("a long secret", None)


def test_the_next_run_of_the_pipeline_keeps_what_was_printed_last(store: Store, killed: Path) -> None:
    print_to(raw(store, "train", "step"), "with a long secret\nand hal")
    print_to(raw(store, "train", "rank-0"), "of a rank\n")
    leftovers.collect(store, "another")
    assert killed.exists(), "its secrets are not known to the configuration of another pipeline"
    leftovers.collect(store, "demo")
    assert collected(store) == {"train/step": b"one\ntwo\nwith ***\nand hal", "train/rank-0": b"of a rank\n"}
    assert not killed.exists()


def test_a_run_tidies_when_it_starts(store: Store, killed: Path, tmp_path: Path) -> None:
    print_to(raw(store, "train", "step"), "three\n")
    collector = Collector(LogsConfig(), store, "the-next-run")
    collector.run_started(samples.run(tmp_path, "the-next-run", pipeline="demo"))
    collector.close()
    assert collected(store) == {"train/step": b"one\ntwo\nthree\n"}


def test_output_of_a_run_that_runs_stays(store: Store, killed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_history, "is_gone", lambda driver: False)
    leftovers.collect(store, "demo")
    assert [raw for _, raw in leftovers.left(store)] == []
    assert killed.exists()
