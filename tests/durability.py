"""Finds data that a power cut could lose: a file that was renamed without being synced may be empty afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

Place = str | os.PathLike[str]
Move = Callable[[Place, Place], None]


@contextmanager
def lost_in_a_power_cut(folder: Path) -> Iterator[list[Path]]:
    """Collects the renames to paths below `folder` that could be lost: files that were not synced between their last
    write and the rename, and renames whose directory was not synced afterwards."""
    synced: set[tuple[int, int, int]] = set()
    moved: dict[Path, Path] = {}  # the directory of a move that is not durable yet: what was moved there
    lost: list[Path] = []

    def sync(descriptor: int, by: Callable[[int], None] = os.fsync) -> None:
        by(descriptor)
        synced.add(_version(os.fstat(descriptor)))
        for directory in [place for place in moved if os.path.samestat(place.stat(), os.fstat(descriptor))]:
            del moved[directory]

    def move(by: Move) -> Move:
        def watched(source: Place, target: Place) -> None:
            place = Path(target).absolute()
            by(source, target)
            if folder in place.parents:
                files = [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else [place]
                lost.extend(path for path in files if _version(path.stat()) not in synced)
                moved[place.parent] = place

        return watched

    with patch("os.fsync", sync), patch("os.rename", move(os.rename)), patch("os.replace", move(os.replace)):
        yield lost
    lost.extend(moved.values())


def _version(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
