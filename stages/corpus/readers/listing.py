"""Finds the files that globs match, on local disks and on every file system that fsspec supports.

A file is named by its path below the fixed part of the glob that found it, so moving a folder changes nothing. The
member of an archive has the name of the archive before its own.

A part of a glob also matches the file or folder that has exactly this name, so that "a[1].txt" can be given as it is.
As in a shell, "*" and "**" do not match names that begin with a dot.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from stages.addresses import redact_url
from stages.base import StageError
from stages.corpus.readers.compression import COMPRESSIONS
from stages.corpus.readers.remote_files import CHAIN, call, file_system, is_url

DEEP = "**"
ARCHIVES = {".zip": "zip", ".tar": "tar", ".tar.gz": "tar", ".tgz": "tar", ".tar.bz2": "tar", ".tar.xz": "tar"}


@dataclass(frozen=True)
class Found:
    """A file that a glob matches."""

    name: str  # "/" separates folders
    size: int  # bytes as stored
    url: str  # an absolute local path, or a URL
    modified_ns: int = 0  # of a local file, or of the local archive that contains it; 0: unknown
    error: str = ""  # why it, or what it contains, cannot be listed


def list_files(paths: Sequence[str], exclude: Sequence[str], suffixes: tuple[str, ...]) -> list[Found]:
    """The files that globs match, each once, by name.

    `exclude`: globs as in `paths`, and globs without "/", for names of files and folders. `suffixes`: of the files that
    can be read, in lower case. Marker files (`_SUCCESS`) are left out. Raises StageError for no file, for a path
    without wildcards at which nothing is found, or for a file with another suffix.
    """
    wanted: dict[str, Found] = {}
    folders: dict[str, str] = {}  # local folder -> the same without links
    for pattern in paths:
        matches = list(_matches(pattern))
        if not matches and not glob.has_magic(pattern):  # misspelled: the others would be read without it
            raise StageError(f"reader.paths: no file matches {pattern}")
        for found in matches:
            if _is_excluded(found, exclude):
                continue
            if not found.error and not found.name.lower().endswith(suffixes):
                if PurePosixPath(found.name).name.startswith("_"):  # written by Spark, Hadoop and others next to data
                    continue
                raise StageError(_cannot_read(found, pattern, suffixes))
            wanted.setdefault(_without_links(found.url, folders), found)
    if not wanted:
        but = f" that {', '.join(exclude)} does not exclude" if exclude else ""
        raise StageError(f"reader.paths: no file matches {', '.join(paths)}{but}")
    return sorted(wanted.values(), key=lambda found: (found.name, found.url))


def _matches(pattern: str) -> Iterator[Found]:
    try:
        yield from _remote(pattern) if is_url(pattern) else _local(pattern)
    except FileNotFoundError as error:
        if (cause := error.__cause__) is None:
            return
        raise StageError(f"reader.paths: {pattern} cannot be listed: {cause}") from None
    except (OSError, ValueError, ImportError) as error:
        raise StageError(f"reader.paths: {pattern} cannot be listed: {error}") from None


def _cannot_read(found: Found, pattern: str, suffixes: tuple[str, ...]) -> str:
    """The message for a file with a suffix that the reader does not read."""
    name = found.name.lower()
    plain = [suffix for suffix in suffixes if not suffix.endswith(COMPRESSIONS[1:])]
    also = f" (each also with {' '.join(COMPRESSIONS[1:])})" if len(plain) < len(suffixes) else ""
    if archive := next((kind for suffix, kind in ARCHIVES.items() if name.endswith(suffix)), ""):
        remedy = f"read what is in the archive as {archive}://**/*{plain[0]}{CHAIN}{pattern}"
    else:
        remedy = f"narrow the glob {pattern}, name the file in reader.exclude, convert the file, or use another reader"
    return f"reader.paths: this reader cannot read {found.url}; expected a suffix of {', '.join(plain)}{also}: {remedy}"


def _is_excluded(found: Found, exclude: Sequence[str]) -> bool:
    names, address = found.name.split("/"), found.url.split("/")
    return any(
        _fits(address, pattern.split("/")) if "/" in pattern else any(fnmatchcase(name, pattern) for name in names)
        for pattern in exclude
    )


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether the parts of an address match those of a glob."""
    if not parts:
        return not names
    if parts[0] == DEEP:
        return any(_fits(names[start:], parts[1:]) for start in range(len(names) + 1))
    return bool(names) and _is_like(names[0], parts[0]) and _fits(names[1:], parts[1:])


def _is_like(name: str, part: str) -> bool:
    return name == part or (fnmatchcase(name, part) and (not name.startswith(".") or part.startswith(".")))


def _without_links(url: str, folders: dict[str, str]) -> str:
    if is_url(url):
        return url
    folder, name = os.path.split(url)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return os.path.realpath(url) if os.path.islink(url) else os.path.join(folders[folder], name)


# ---------------------------------------------------------------------------------------------------------------
# Local disks


def _local(pattern: str) -> Iterator[Found]:
    base, parts = _divided(pattern)
    if os.path.isdir(pattern):
        base, parts = pattern, (DEEP, "*")
    below = len(os.path.join(base, ""))
    if parts[-1] == DEEP:
        parts = (*parts, "*")
    folders = [base]
    for part in parts[:-1]:
        folders = list(_everything_below(folders) if part == DEEP else _folders_like(folders, part))
    found = []
    for folder in folders:
        try:
            found += [entry for entry in os.scandir(folder) if _is_like(entry.name, parts[-1])]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            yield _unreadable(folder, base, error)
    # A file that is also reached through links has its shortest name.
    for entry in sorted(found, key=lambda entry: (entry.path.count(os.sep), entry.path)):
        if _is(entry.is_file):
            with suppress(FileNotFoundError):  # removed in the meantime
                stat = entry.stat()
                yield Found(entry.path[below:], stat.st_size, entry.path, stat.st_mtime_ns)


def _folders_like(folders: list[str], part: str) -> Iterator[str]:
    for folder in folders:
        if not glob.has_magic(part):
            yield os.path.join(folder, part)
            continue
        for entry in _entries(folder):
            if _is_like(entry.name, part) and _is(entry.is_dir):
                yield entry.path


def _everything_below(folders: list[str]) -> Iterator[str]:
    """The folders and all folders below, each once, whatever links lead to it. Level by level: short names first."""
    known: set[tuple[int, int]] = set()
    level = folders
    while level:
        below = []
        for folder in sorted(level, key=lambda folder: folder + os.sep):
            try:
                stat = os.stat(folder)
            except OSError:
                continue
            if (stat.st_dev, stat.st_ino) in known:
                continue
            known.add((stat.st_dev, stat.st_ino))
            yield folder
            below += [entry.path for entry in _entries(folder) if not entry.name.startswith(".") and _is(entry.is_dir)]
        level = below


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError:  # reported where the files of the folder are listed
        return []


def _is(kind: Callable[[], bool]) -> bool:
    """Whether an entry of a folder is of a kind: its `is_file` or `is_dir`."""
    try:
        return kind()
    except OSError:  # a link to itself
        return False


def _unreadable(folder: str, base: str, error: OSError) -> Found:
    return Found(os.path.relpath(folder, base), 0, folder, error=f"it cannot be listed: {error.strerror}")


# ---------------------------------------------------------------------------------------------------------------
# Other file systems


def _remote(pattern: str) -> Iterator[Found]:
    outer, chained, inner = pattern.partition(CHAIN)
    if not chained:
        yield from _stored(pattern)
    elif is_url(outer):
        for archive in _matches(inner):
            yield from _members(outer, archive)
    else:  # a cache: simplecache::s3://bucket/*.jsonl
        for found in _matches(inner):
            yield replace(found, url=f"{outer}{CHAIN}{found.url}")


def _members(pattern: str, archive: Found) -> Iterator[Found]:
    try:
        for found in _stored(f"{pattern}{CHAIN}{archive.url}"):
            yield replace(
                found,
                name=f"{archive.name}/{found.name}",
                url=f"{found.url}{CHAIN}{archive.url}",
                modified_ns=archive.modified_ns,
            )
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            return
        yield replace(archive, error=f"it is not a readable archive: {error}")


def _stored(pattern: str) -> Iterator[Found]:
    """What matches on one file system. The URLs are those on that file system."""
    system, path = file_system(pattern)
    system.invalidate_cache()  # of an earlier listing
    parts = path.split("/")
    if glob.has_magic(path) and not call(system.exists, path):
        found = call(lambda: system.glob(path, detail=True))
        base = _divided(path)[0]
        parts = parts[len(PurePosixPath(base).parts) if base != "." else 0 :]
    else:
        info = call(system.info, path)
        found, base = {path: info}, str(PurePosixPath(path).parent)
        if info["type"] == "directory":
            found, base = call(lambda: system.find(path, detail=True)), path
    for name, info in sorted(found.items()):
        below = PurePosixPath(name).relative_to(base).as_posix()
        hidden = any(part.startswith(".") for part in below.split("/"))
        if info["type"] == "file" and not (hidden and not any(part.startswith(".") for part in parts)):
            yield Found(redact_url(below), int(info["size"] or 0), system.unstrip_protocol(name))


def _divided(pattern: str) -> tuple[str, tuple[str, ...]]:
    """The folder before the first wildcard of a glob (the folder of the file without one), and the parts after it."""
    parts = PurePosixPath(pattern).parts
    fixed = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return str(PurePosixPath(*parts[:fixed])), parts[fixed:]
