"""The cache of digests of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.store.digests import DigestMemory


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o077, 0o600)])
def test_the_umask_decides_who_else_may_write_to_it(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        DigestMemory(tmp_path / "digests.sqlite").remember([("a", "1:1:1:1", "0" * 64)])
    finally:
        os.umask(before)
    assert (tmp_path / "digests.sqlite").stat().st_mode & 0o777 == mode
    assert DigestMemory(tmp_path / "digests.sqlite").known() == {"a": ("1:1:1:1", "0" * 64)}
