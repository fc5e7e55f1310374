"""The operations that the store needs from a file system: a local disk, or any other that fsspec supports.

A local disk gives durability and atomicity by fsync and rename. An object store has neither a rename nor directories,
but its single puts are atomic: attempts have names of their own, so a half-uploaded one is never mistaken for whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cluster.extras import missing_extra
from pipelines.errors import BloomlineError
from pipelines.redaction import redact_url, redacted
from pipelines.store.digests import Token, stat_token
from pipelines.store.retry import FIRST_PAUSE_S, LONGEST_PAUSE_S, is_temporary

T = TypeVar("T")


class StoreError(BloomlineError, OSError):
    """The store can't be reached, read or written to. Also an OSError, as those of a local disk are."""


class Files(Protocol):
    """Paths are relative to the store's root, with forward slashes."""

    def read(self, path: str) -> bytes | None:
        """The content of a small file, or None if there is none."""

    def write(self, path: str, content: bytes) -> None:
        """Replace a small file atomically and durably."""

    def create(self, path: str, content: bytes) -> bool:
        """Write a small file that must not exist yet; False if it does. It need not survive the machine's death."""

    def remove(self, path: str) -> None:
        """Remove a file, or a directory with all in it; nothing happens if it is not there."""

    def names(self, directory: str) -> list[str]:
        """The names in a directory; empty if there is none."""

    def tokens(self, directory: str) -> dict[str, tuple[int, Token]]:
        """Every file below a directory: relative path -> (size in bytes, a token that changes with the content)."""

    def put(self, source: Path, directory: str) -> None:
        """Move a local directory, already synced, to a location that does not exist yet."""

    def key(self, path: str) -> str:
        """A name for the file that is unique in this machine's digest cache."""

    def uri(self, path: str) -> str: ...


class LocalFiles:
    """A directory on a disk of this machine, or on one that all nodes of the cluster mount."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> bytes | None:
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, path: str, content: bytes) -> None:
        target = self.root / path
        with _written_aside(target, content, durable=True) as part:
            os.replace(part, target)
        sync_directory(target.parent)

    def create(self, path: str, content: bytes) -> bool:
        """The file is written under another name and then linked, so that every reader finds it complete."""
        target = self.root / path
        with _written_aside(target, content, durable=False) as part:
            try:
                os.link(part, target)
            except FileExistsError:
                return False
        return True

    def remove(self, path: str) -> None:
        target = self.root / path
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    def names(self, directory: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return sorted(name for name in os.listdir(self.root / directory) if not name.startswith("."))
        return []

    def tokens(self, directory: str) -> dict[str, tuple[int, Token]]:
        found: dict[str, tuple[int, Token]] = {}
        pending = [""]
        while pending:
            prefix = pending.pop()
            with (
                contextlib.suppress(FileNotFoundError, NotADirectoryError),
                os.scandir(self.root / directory / prefix) as entries,
            ):
                for entry in entries:
                    path = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(path + "/")
                    else:
                        stat = entry.stat(follow_symlinks=False)
                        found[path] = (stat.st_size, stat_token(stat))
        return found

    def put(self, source: Path, directory: str) -> None:
        target = self.root / directory
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)
        sync_directory(target.parent)

    def key(self, path: str) -> str:
        return str(self.root / path)

    def uri(self, path: str) -> str:
        return str(self.root / path)


class RemoteFiles:
    """Any file system of fsspec: s3://, gs://, memory://, ...

    A file system that has answered before is asked again for `retry_s` seconds when it is out of reach. `answered` says
    that it has answered another process. One that never answered is refused at once: its address may be wrong.
    """

    def __init__(self, root: str, options: Mapping[str, Any], retry_s: float = 0.0, answered: bool = False) -> None:
        self._uri = redact_url(root.rstrip("/"))  # for messages and records
        self._retry_s = retry_s
        self._answered = answered
        self._is_away = False
        self._hurried = threading.Event()
        self.tell: Callable[[str], None] | None = None  # hears when the server stops answering, and answers again
        self._fs, path = self._call("open it", lambda: _open(root, options))
        self._answered = answered  # opening does not reach the server
        self._root = path.rstrip("/")

    def _call(self, what: str, call: Callable[[], T]) -> T:
        """The result of `call`. Calls again after a temporary error, then raises StoreError.

        FileNotFoundError and FileExistsError are answers and pass unchanged.
        """
        if self._is_away and self._hurried.is_set():  # the library that asks takes ten seconds to give up, each time
            raise StoreError(f"The store at {self._uri}: can't {what}: it does not answer.")
        began, pause = time.monotonic(), FIRST_PAUSE_S
        while True:
            try:
                result = call()
                self._has_answered()
                return result
            except (FileNotFoundError, FileExistsError, NotADirectoryError):
                self._has_answered()
                raise
            except Exception as error:
                waited = time.monotonic() - began
                again = self._answered and is_temporary(error)
                was_away, self._is_away = self._is_away, self._is_away or again
                if not again or self._hurried.is_set() or waited + pause > self._retry_s:
                    raise self._failure(what, error, f" (tried for {waited:.0f} s)" if again else "") from error
                if not was_away:
                    self._tell(f"does not answer, and is tried for up to {self._retry_s:.0f} s: {_first_line(error)}")
            self._hurried.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def hurry(self) -> None:
        """From now on, do not try again, and do not ask a server that is away: the run was asked to end at once."""
        self._hurried.set()

    def _has_answered(self) -> None:
        self._answered = True
        if self._is_away:
            self._is_away = False
            self._tell("answers again.")

    def _tell(self, what: str) -> None:
        if self.tell:
            self.tell(redacted(f"The store at {self._uri} {what}"))

    def _failure(self, what: str, error: Exception, tried: str) -> StoreError:
        # fsspec raises another error from that of a module which is not installed.
        if error.__cause__ and (refusal := missing_extra(error.__cause__)):
            return StoreError(f"The store at {self._uri}: {refusal}")
        line = _first_line(error)
        if "Unable to locate credentials" in line:  # botocore's NoCredentialsError, which s3fs wraps
            return StoreError(
                f"The store at {self._uri}: there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or AWS_PROFILE, or store.options.anon=true for a public bucket."
            )
        remedy = "Raise store.retry_s to wait longer." if tried else ""
        return StoreError(
            f"The store at {self._uri}: can't {what}: {line.rstrip('.')}{tried}. "
            f"Check store.root, store.options and the credentials. {remedy}".rstrip()
        )

    def expect_bucket(self) -> None:
        """Raise StoreError if the bucket of an S3 root does not exist; nothing is known of other file systems."""
        bucket = self._root.split("/", 1)[0]
        if "s3" not in self._fs.protocol:
            return
        try:
            self._fs.call_s3("head_bucket", Bucket=bucket)
        except FileNotFoundError:
            raise StoreError(
                f"The store at {self._uri}: there is no bucket {bucket!r}. Create it, or choose another store.root."
            ) from None
        except OSError:  # a key that may not ask this may still read and write
            return

    def read(self, path: str) -> bytes | None:
        try:
            content: bytes = self._call(f"read {path}", lambda: self._fs.cat_file(f"{self._root}/{path}"))
        except FileNotFoundError:
            return None
        return content

    def write(self, path: str, content: bytes) -> None:
        self._call(f"write {path}", lambda: self._fs.pipe_file(f"{self._root}/{path}", content))

    def create(self, path: str, content: bytes) -> bool:
        attempts = 0

        def attempt() -> bool:
            nonlocal attempts
            attempts += 1
            try:
                self._fs.pipe_file(f"{self._root}/{path}", content, mode="create")
            except FileExistsError:
                return False
            except Exception as error:
                if "PreconditionFailed" in str(error) or "pre-conditions" in str(error):
                    return False
                raise
            return True

        created = self._call(f"write {path}", attempt)
        # The answer to an earlier attempt may have been lost after the file was written.
        return created or (attempts > 1 and self.read(path) == content)

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._call(f"remove {path}", lambda: self._fs.rm(f"{self._root}/{path}", recursive=True))

    def names(self, directory: str) -> list[str]:
        try:
            found: Iterable[str] = self._call(
                f"list {directory}", lambda: self._fs.ls(f"{self._root}/{directory}", detail=False)
            )
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in found)

    def tokens(self, directory: str) -> dict[str, tuple[int, Token]]:
        base = f"{self._root}/{directory}"
        try:
            found: Mapping[str, Mapping[str, Any]] = self._call(
                f"list {directory}", lambda: self._fs.find(base, detail=True)
            )
        except FileNotFoundError:
            return {}
        telling = ("ETag", "etag", "md5Hash", "generation", "LastModified", "last_modified", "created", "mtime")
        return {
            name.removeprefix(base).lstrip("/"): (
                int(info["size"]),
                ":".join(str(info[key]) for key in ("size", *telling) if key in info),
            )
            for name, info in found.items()
        }

    def put(self, source: Path, directory: str) -> None:
        for path in sorted(source.rglob("*")):
            if path.is_file():
                name = f"{directory}/{path.relative_to(source).as_posix()}"
                self._call(f"write {name}", partial(self._fs.put_file, str(path), f"{self._root}/{name}"))
        shutil.rmtree(source)

    def get(self, path: str, target: Path) -> None:
        """Fetch one file to a local path."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._call(f"read {path}", lambda: self._fs.get_file(f"{self._root}/{path}", str(target)))

    def key(self, path: str) -> str:
        return f"{self._uri}/{path}"

    def uri(self, path: str) -> str:
        return f"{self._uri}/{path}"


def _first_line(error: Exception) -> str:
    return redact_url((str(error).strip().splitlines() or [type(error).__name__])[0])


def _open(root: str, options: Mapping[str, Any]) -> Any:
    """fsspec's file system for a URI, and the path in it."""
    import fsspec

    return fsspec.core.url_to_fs(root, **options, use_listings_cache=False)


def sync_tree(directory: Path) -> None:
    """Make every file and directory below (and with) `directory` durable."""
    for parent, _, names in os.walk(directory, topdown=False):
        for name in names:
            _sync(Path(parent, name))
        sync_directory(Path(parent))


def sync_directory(directory: Path) -> None:
    _sync(directory)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _written_aside(target: Path, content: bytes, durable: bool) -> Iterator[Path]:
    """A temporary file in the directory of `target`, to be moved or linked there. Removed at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(part, "xb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        yield part
    finally:
        part.unlink(missing_ok=True)
