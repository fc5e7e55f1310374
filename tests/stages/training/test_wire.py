"""The bytes that training reports as sent are the bytes that the kernel carries."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.training.buffers import groups_of
from tests.stages.training.toy import Toy

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_the_kernel_counts_the_same_bytes() -> None:
    """In a separate network namespace, for two steps of four micro-batches on two ranks."""
    own = [shutil.which("unshare") or "unshare", "-n"]
    try:
        allowed = subprocess.run([*own, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("no separate network namespace: needs unshare and the permission to use it")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*own, sys.executable, "-m", "tests.stages.training.wire"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=240,
    )  # fmt: skip
    model = Toy(width=256, blocks=2)
    groups = groups_of(model, list(model.blocks), [model.embedding], [model.embedding, model.norm])
    shared, *blocks, head = (4 * group.padded(2) for group in groups)
    whole = shared + sum(blocks) + head
    # Per step: what both ranks together send of a whole, (N - 1) / N each; two micro-batches on each rank.
    expected = {
        0: 2 * whole,
        1: 2 * whole,
        2: 3 * whole,
        3: 2 * whole + 2 * (2 * shared + 2 * sum(blocks) - blocks[-1] + head),
    }
    for line in done.stdout.splitlines():
        stage, carried, said = json.loads(line)
        assert said == pytest.approx(2 * expected.pop(stage), rel=1e-3)  # and a little that ranks agree on
        assert said < carried < 1.02 * said  # the rest is TCP's and IP's
    assert not expected
