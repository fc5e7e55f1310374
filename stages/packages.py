"""Packages of bloomline and of its users, and the files that belong to one."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from stages.secret_files import is_secret_file

OWN_PACKAGES = ("cluster", "conf", "pipelines", "stages")  # the top-level packages of bloomline itself


def package_files(package: Path) -> list[Path]:
    """The files of a package or of a single module, in order: what its identity covers and what its copies hold.

    Compiled and hidden files are left out, and those with the names of secrets. Links are followed, unless they are
    broken or lead to a directory that contains them. Raises OSError.
    """
    if package.is_file():
        return [package]
    found: list[Path] = []
    folders: list[tuple[Path, frozenset[Path]]] = [(package, frozenset())]
    for folder, above in folders:
        inside = above | {folder.resolve()}
        for entry in folder.iterdir():
            if entry.name.startswith(".") or entry.name == "__pycache__" or is_secret_file(entry.name):
                continue
            if entry.is_file():
                found.append(entry)
            elif entry.is_dir() and entry.resolve() not in inside:
                folders.append((entry, inside))
    return sorted(found)


def content_digest(package: Path) -> str:
    """The SHA-256 of the names and contents of a package's files. Raises OSError."""
    found = []
    for file in package_files(package):
        stat = file.stat()
        name = file.name if file == package else file.relative_to(package).as_posix()
        found.append((file, name, stat.st_size, stat.st_ctime_ns))
    return _digest_of(tuple(found))


@lru_cache(maxsize=64)
def _digest_of(files: tuple[tuple[Path, str, int, int], ...]) -> str:
    """The digest of files with their names, remembered by their sizes and change times."""
    total = hashlib.sha256()
    for file, name, _, _ in files:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        total.update(os.fsencode(f"{name}\0{digest}\n"))
    return total.hexdigest()
