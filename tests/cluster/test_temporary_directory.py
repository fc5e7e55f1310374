from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.base import ClusterError
from cluster.temporary_directory import KEPT_S, LOCK, LONGEST_BASE, TemporaryDirectory

SESSION = "session_2026-01-01_00-00-00_000000_1234567"  # as Ray names them, with the longest process id
LONGEST_SOCKET = 107  # bytes


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


def test_the_paths_of_sockets_are_short_enough(tmp_path: Path) -> None:
    directory = TemporaryDirectory(tmp_path)
    longest = directory.ray / SESSION / "sockets" / "plasma_store"
    assert LONGEST_BASE + len(str(longest.relative_to(tmp_path))) + 1 <= LONGEST_SOCKET
    directory.remove()


def test_only_this_user_can_enter_it_whatever_the_mask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        directory = TemporaryDirectory(tmp_path)
    finally:
        os.umask(before)
    assert directory.path.stat().st_mode & 0o777 == 0o700
    directory.remove()


def test_it_is_not_made_where_others_can_replace_it(tmp_path: Path) -> None:
    base = tmp_path / "open" / "base"
    base.mkdir(parents=True)
    base.parent.chmod(0o777)
    with pytest.raises(ClusterError, match=r"chmod \+t .*/open"):
        TemporaryDirectory(base)
    base.parent.chmod(0o1777)
    TemporaryDirectory(base).remove()


@pytest.mark.parametrize("how", ["a link", "of another user"])
def test_nothing_that_another_user_left_is_opened(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is a link would be emptied when it is opened."""
    precious = tmp_path / "precious"
    precious.write_text("text")
    long_ago = time.time() - 2 * KEPT_S
    os.utime(precious, (long_ago, long_ago))
    left = tmp_path / "elsewhere" if how == "a link" else tmp_path / "bloomline-left"
    left.mkdir()
    (left / LOCK).symlink_to(precious)
    if how == "a link":
        (tmp_path / "bloomline-left").symlink_to(left)
    else:
        monkeypatch.setattr("cluster.temporary_directory.os.geteuid", lambda: os.getuid() + 1)
    TemporaryDirectory(tmp_path).remove()
    assert precious.read_text() == "text"
    assert left.is_dir()
