"""A killed driver leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.support import gone

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def descendants(pid: int) -> list[int]:
    """The processes that `pid` started, and their descendants."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = parents.get(pid, [])
    return found + [below for child in found for below in descendants(child)]


def name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0].strip()
    except OSError:
        return ""


def start(home: Path, *words: str, **pipes: Any) -> subprocess.Popen[str]:
    """Start tests/cluster/driver.py with a minimal environment."""
    command = [sys.executable, "-m", "tests.cluster.driver", *words]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], env=environment, text=True, **pipes)


@pytest.mark.parametrize("words", [[], ["adopted"]], ids=["init adopts orphans", "another process adopts orphans"])
@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux the kernel ends the processes of a driver")
def test_a_killed_driver_leaves_no_process(words: list[str], tmp_path: Path) -> None:
    with start(tmp_path, *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as outermost:
        assert outermost.stdout
        line = outermost.stdout.readline().split()
        assert len(line) == 3, "the driver did not start its gang"
        driver, *ranks = map(int, line)
        # Ray's two agents try to reach its control service for a minute before they end too.
        started = [pid for pid in descendants(driver) if not name(pid).endswith("Agent")]
        assert set(ranks) < set(started)
        os.kill(driver, signal.SIGKILL)
        assert gone(started, within_s=60)
    assert not any(tmp_path.iterdir()), "Ray left files in HOME"


@pytest.mark.timeout(480)
@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux the driver adopts orphans")
def test_a_start_during_which_the_head_is_lost_is_tried_again_and_leaves_no_process(tmp_path: Path) -> None:
    with start(tmp_path, "lose-first-start", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as driver:
        seen: set[int] = set()
        deadline = time.monotonic() + 360  # of which Ray waits 15 to 30 s for the lost head
        while driver.poll() is None and time.monotonic() < deadline:
            seen.update(descendants(driver.pid))
            time.sleep(0.05)
        assert driver.poll() == 0
        assert driver.stdout
        lost, ranks = driver.stdout.read().splitlines()
        assert lost == "lost"
        assert ranks.startswith(f"{driver.pid} ")  # its ranks have run
    assert len(seen) > 2
    assert gone(list(seen), within_s=30)


def test_after_the_head_is_lost_a_running_step_can_end_and_the_next_is_lost_at_once(tmp_path: Path) -> None:
    with start(tmp_path, "lose-head", stdout=subprocess.PIPE) as driver:
        output, _ = driver.communicate(timeout=240)
    assert output.split() == ["done", "lost"]
    assert driver.returncode == 0  # Ray ends a process that waits for a lost head for a minute
