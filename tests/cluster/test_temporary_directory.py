from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from cluster.temporary_directory import KEPT_S, LOCK, TemporaryDirectory


def age(path: Path) -> None:
    long_ago = time.time() - 2 * KEPT_S
    os.utime(path / LOCK, (long_ago, long_ago))


def test_remove_deletes_the_directory(tmp_path: Path) -> None:
    directory = TemporaryDirectory(tmp_path)
    (directory.path / "log").write_text("text")
    directory.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_directory_of_a_killed_driver_is_removed_after_a_while(tmp_path: Path) -> None:
    program = "from cluster.temporary_directory import *; "
    program += f"print(TemporaryDirectory(Path({str(tmp_path)!r})).path, flush=True)"
    program += "; import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60)
    left = Path(killed.stdout.strip())
    assert killed.returncode < 0
    assert left.is_dir()
    alive = TemporaryDirectory(tmp_path)
    foreign = tmp_path / "bloomline-of-somebody"
    foreign.mkdir()
    TemporaryDirectory(tmp_path).remove()
    assert left.exists()  # its logs may be needed
    for path in (left, alive.path):
        age(path)
    TemporaryDirectory(tmp_path).remove()
    assert sorted(tmp_path.iterdir()) == sorted([alive.path, foreign])
    alive.remove()
