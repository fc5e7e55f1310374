"""SHA-256 of files, cached by the file's stat, so that an unchanged file is not read again.

A file is taken for unchanged only if size, modification time, inode change time and inode are all as they were when
it was read. Programs can set the modification time back but not the change time, so a byte flipped behind our back
is noticed. A file changed within the resolution of the clock of its hashing is not remembered.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

CHUNK_BYTES = 1 << 20
BATCH_FILES = 2000
SETTLED_NS = 50_000_000  # coarser than the time stamps of any known file system

Token = str


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stat_token(found: os.stat_result) -> Token:
    """A token from a file's stat, which changes whenever the content does."""
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}:{found.st_ino}"


def create_database_file(path: Path) -> None:
    """Create an empty file for a sqlite database, if there is none, with the mode that the umask gives.

    Sqlite itself creates files that a group can't write to, whatever the umask, and the users of a group share a store.
    """
    with contextlib.suppress(OSError):  # sqlite says why
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT, 0o666))


class DigestMemory:
    """Path -> (token, digest), in sqlite: several processes may use it at once. Losing it costs time only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, tuple[Token, str]] | None = None
        self._pending: list[tuple[str, Token, str]] | None = None  # while digests are remembered in batches
        self.watch: Callable[[int], None] | None = None  # called with the size of each file that was read

    def digest(self, path: Path) -> str:
        """The SHA-256 of a local file, from the cache if its stat is unchanged. Raises OSError."""
        key, before = str(path.absolute()), os.stat(path)
        known = self.known().get(key)
        if known and known[0] == stat_token(before):
            return known[1]
        found = sha256_of(path)
        after = os.stat(path)
        if stat_token(after) == stat_token(before) and time.time_ns() - after.st_ctime_ns > SETTLED_NS:
            entry = (key, stat_token(after), found)
            if self._pending is None:
                self.remember([entry])
            else:
                self._pending.append(entry)
                self._flush(BATCH_FILES)
        if self.watch is not None:
            self.watch(after.st_size)
        return found

    @contextmanager
    def in_batches(self) -> Iterator[None]:
        """While the context lasts, digests are remembered BATCH_FILES at a time: a transaction for each takes longer
        than to read a small file."""
        self._pending = []
        try:
            yield
        finally:
            self._flush(1)
            self._pending = None

    def _flush(self, at_least: int) -> None:
        if self._pending and len(self._pending) >= at_least:
            self.remember(self._pending)
            self._pending = []

    def known(self) -> dict[str, tuple[Token, str]]:
        """Every cached digest. Read once; what other processes add later is not seen here."""
        if self._known is None:
            self._known = {}
            if self._path.exists():
                try:
                    with self._connection() as connection:
                        rows = connection.execute("SELECT path, token, sha256 FROM digests")
                        self._known = {path: (token, digest) for path, token, digest in rows}
                except sqlite3.OperationalError:
                    pass  # another process is creating it, or has it locked
                except sqlite3.DatabaseError:
                    self._path.unlink(missing_ok=True)  # start again with an empty cache
        return self._known

    def remember(self, entries: Iterable[tuple[str, Token, str]]) -> None:
        """Remember (path, token, digest) triples."""
        entries = list(entries)
        if not entries:
            return
        if self._known is not None:  # a step's process, which only adds, need not read what there is
            self._known.update({path: (token, digest) for path, token, digest in entries})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._connection() as connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, token TEXT, sha256 TEXT)"
                )
                connection.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", entries)
        except (sqlite3.Error, UnicodeEncodeError):
            pass  # a full disk, a locked file, or a path that is not UTF-8: it will be hashed again

    def forget(self, paths: Iterable[str]) -> None:
        """Forget files that were found damaged, so that they are read again although their stat is unchanged."""
        paths = list(paths)
        for path in paths:
            self.known().pop(path, None)
        if paths and self._path.exists():
            # In a store that can't be written to, no run can replace the damaged file either.
            with contextlib.suppress(sqlite3.Error), self._connection() as connection:
                connection.executemany("DELETE FROM digests WHERE path = ?", [(path,) for path in paths])

    def forget_below(self, prefix: str) -> None:
        """Forget every path that begins with `prefix`."""
        self._known = {path: entry for path, entry in self.known().items() if not path.startswith(prefix)}
        if self._path.exists():
            # Entries that remain do no harm: no other file ever has that path.
            with contextlib.suppress(sqlite3.Error), self._connection() as connection:
                connection.execute("DELETE FROM digests WHERE substr(path, 1, ?) = ?", (len(prefix), prefix))

    def _connection(self) -> sqlite3.Connection:
        create_database_file(self._path)
        connection = sqlite3.connect(self._path, timeout=10)
        connection.execute("PRAGMA synchronous = OFF")  # digests that a power failure loses are computed again
        return connection
