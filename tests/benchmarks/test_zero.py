"""The parts of the ZeRO benchmark: every variant trains to the same loss, and its table says what was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks import zero
from benchmarks.zero_setting import SHARDED, Setting

ROOT = Path(__file__).parents[2]
TINY = Setting(hidden_size=32, layers=2, heads=2, vocab_size=64, length=16, samples=2, micro_batches=2, ranks=2)


@pytest.mark.slow
def test_all_variants_train_alike() -> None:
    """Here and in the peers that are installed: the same loss after two steps, and times of every round."""
    names = [variant.name for variant in SHARDED]
    task = {"namespace": False, "variants": names, "rounds": 1, "steps": 1, "setting": asdict(TINY)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.zero_ranks", json.dumps(task)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=True, timeout=240,
    )  # fmt: skip
    facts = {row.pop("variant"): row for row in map(json.loads, done.stdout.splitlines())}
    assert list(facts) == names
    measured = {name: row for name, row in facts.items() if "error" not in row}
    assert len([name for name in measured if name.startswith("bloomline")]) == 4
    assert {"DDP 0", "FSDP2 2", "FSDP2 3", "any order 1"} <= measured.keys()
    for name, row in measured.items():
        assert row["loss"] == pytest.approx(measured["bloomline 0"]["loss"], rel=1e-4), name
        assert len(row["seconds"]) == 1


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Ratios are of paired rounds; what could not be measured says why."""
    facts: dict[str, dict[str, Any]] = {
        "bloomline 1": {"held_bytes": 800, "peak_bytes": 1600, "sent_bytes": 400, "seconds": [1.0, 2.0, 4.0]},
        "DeepSpeed 1": {"held_bytes": 1200, "peak_bytes": 2000, "sent_bytes": 600, "seconds": [2.0, 3.0, 8.0]},
        "FSDP2 2": {"error": "RuntimeError: no"},
    }
    zero.print_sharded(facts, TINY, 100)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["bloomline", "1", "2.00", "4.00", "2.00", "64", "-"] in lines
    assert ["DeepSpeed", "1", "3.00", "5.00", "3.00", "43", "2.00", "x", "-"] in lines
    assert ["FSDP2", "2", "not", "measured:", "RuntimeError:", "no"] in lines
