"""Whether a failed step has a log to look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipelines.logs import kept_log
from pipelines.store import Store
from tests.pipelines import samples


def test_a_failed_step_that_printed_nothing_is_noted(store: Store, tmp_path: Path) -> None:
    sample = samples.run(tmp_path, state="failed")
    run = replace(sample, steps=tuple(replace(step, state="failed") for step in sample.steps[:2]))
    store.files.write("runs/run-1/logs/corpus/step/000000000000000", b"words\n")
    assert kept_log.noting_silence(run, store).silent == ("pretrain",)
    assert kept_log.noting_silence(sample, store).silent == ()
