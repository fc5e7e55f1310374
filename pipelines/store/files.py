"""The operations that the store needs from a file system: a local disk, or any other that fsspec supports.

A local disk gives durability and atomicity by fsync and rename. An object store has neither a rename nor directories,
but its single puts are atomic: attempts have names of their own, so a half-uploaded one is never mistaken for whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from pipelines.errors import BloomlineError
from pipelines.store.digests import Token, stat_token


class StoreError(BloomlineError, OSError):
    """The store can't be reached, read or written to. Also an OSError, as those of a local disk are."""


class Files(Protocol):
    """Paths are relative to the store's root, with forward slashes."""

    def read(self, path: str) -> bytes | None:
        """The content of a small file, or None if there is none."""

    def write(self, path: str, content: bytes) -> None:
        """Replace a small file atomically and durably."""

    def create(self, path: str, content: bytes) -> bool:
        """Write a small file that must not exist yet; False if it does."""

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
        with _written_aside(target, content) as part:
            os.replace(part, target)
        sync_directory(target.parent)

    def create(self, path: str, content: bytes) -> bool:
        """The file is written under another name and then linked, so that every reader finds it complete."""
        target = self.root / path
        with _written_aside(target, content) as part:
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
    """Any file system of fsspec: s3://, gs://, memory://, ..."""

    def __init__(self, root: str, options: Mapping[str, Any]) -> None:
        self._uri = root.rstrip("/")
        with self._reached("open it"):
            import fsspec

            self._fs, path = fsspec.core.url_to_fs(root, **options, use_listings_cache=False)
        self._root = path.rstrip("/")

    @contextlib.contextmanager
    def _reached(self, what: str) -> Iterator[None]:
        """Turn the errors of a file system (an unreachable server, a wrong key, a missing package) into StoreErrors.

        FileNotFoundError and FileExistsError are answers and pass unchanged.
        """
        try:
            yield
        except (FileNotFoundError, FileExistsError, NotADirectoryError):
            raise
        except Exception as error:
            words = str(error).strip().splitlines() or [type(error).__name__]
            raise StoreError(
                f"The store at {self._uri}: can't {what}: {words[0]}. "
                "Check store.root, store.options and the credentials."
            ) from error

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
            with self._reached(f"read {path}"):
                content: bytes = self._fs.cat_file(f"{self._root}/{path}")
        except FileNotFoundError:
            return None
        return content

    def write(self, path: str, content: bytes) -> None:
        with self._reached(f"write {path}"):
            self._fs.pipe_file(f"{self._root}/{path}", content)

    def create(self, path: str, content: bytes) -> bool:
        try:
            with self._reached(f"write {path}"):
                self._fs.pipe_file(f"{self._root}/{path}", content, mode="create")
        except FileExistsError:
            return False
        except StoreError as error:
            if "PreconditionFailed" in str(error) or "pre-conditions" in str(error):
                return False
            raise
        return True

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._reached(f"remove {path}"):
            self._fs.rm(f"{self._root}/{path}", recursive=True)

    def names(self, directory: str) -> list[str]:
        try:
            with self._reached(f"list {directory}"):
                found: Iterable[str] = self._fs.ls(f"{self._root}/{directory}", detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in found)

    def tokens(self, directory: str) -> dict[str, tuple[int, Token]]:
        base = f"{self._root}/{directory}"
        try:
            with self._reached(f"list {directory}"):
                found: Mapping[str, Mapping[str, Any]] = self._fs.find(base, detail=True)
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
                with self._reached(f"write {name}"):
                    self._fs.put_file(str(path), f"{self._root}/{name}")
        shutil.rmtree(source)

    def get(self, path: str, target: Path) -> None:
        """Fetch one file to a local path."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._reached(f"read {path}"):
            self._fs.get_file(f"{self._root}/{path}", str(target))

    def key(self, path: str) -> str:
        return f"{self._uri}/{path}"

    def uri(self, path: str) -> str:
        return f"{self._uri}/{path}"


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
def _written_aside(target: Path, content: bytes) -> Iterator[Path]:
    """A durable temporary file in the directory of `target`, to be moved or linked there. Removed at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(part, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield part
    finally:
        part.unlink(missing_ok=True)
