"""Finds and opens files on local disks and on every file system that fsspec supports (s3://, memory://, ...).

A file is named by its path below the fixed part of the glob that found it, so moving a folder changes nothing.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from stages.base import StageError
from stages.corpus.readers.read_position import tracking_position
from stages.corpus.readers.reader import Part, Reader, digest_of

COMPRESSIONS = ("", ".gz", ".zst")
BUFFER_BYTES = 1 << 20
CONTENT_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "sha256")  # by which object stores identify a file's content


@dataclass(frozen=True)
class FilePart(Part):
    """A file to read, or a range of one."""

    url: str = ""  # an absolute local path, or a URL
    modified_ns: int = 0  # of a local file when it was listed; 0: unknown


def _absolute(paths: tuple[str, ...]) -> tuple[str, ...]:
    # Workers run in other folders than the command.
    return tuple(path if "://" in path else os.path.abspath(os.path.expanduser(path)) for path in paths)


Paths = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_absolute)]


class FileReader(Reader):
    """A reader of files, given as globs, on file systems that every node sees."""

    paths: Paths  # globs; "**" crosses folders; local paths are relative to the folder of the command

    def suffixes(self) -> tuple[str, ...]:
        """The suffixes of the files that it can read."""
        raise NotImplementedError

    def digest_content(self, digest_file: Callable[[Path], str]) -> str:
        files = sorted([part.name, content_digest(part, digest_file)] for part in self.parts())
        return digest_of([files, self.options()])

    def parts(self) -> list[FilePart]:
        return find_files(self.paths, self.suffixes())


def compressed(*suffixes: str) -> tuple[str, ...]:
    """Each suffix, plain and with the suffix of each supported compression."""
    return tuple(suffix + compression for suffix in suffixes for compression in COMPRESSIONS)


def find_files(paths: Sequence[str], suffixes: tuple[str, ...]) -> list[FilePart]:
    """The files that match globs, each once, by name. Raises StageError for no file, or for another suffix."""
    found: dict[str, FilePart] = {}
    for pattern in paths:
        for part in _remote(pattern) if "://" in pattern else _local(pattern):
            if not part.name.endswith(suffixes):
                raise StageError(
                    f"reader.paths: this reader cannot read {part.url}; expected a suffix of {', '.join(suffixes)}: "
                    f"narrow the glob {pattern}, convert the file, or use another reader"
                )
            found.setdefault(os.path.realpath(part.url) if "://" not in part.url else part.url, part)
    if not found:
        raise StageError(f"reader.paths: no file matches {', '.join(paths)}")
    return sorted(found.values(), key=lambda part: (part.name, part.url))


def content_digest(part: FilePart, digest_file: Callable[[Path], str]) -> str:
    """Identifies the content of a file: its SHA-256, or the digest that the object store reports."""
    if "://" not in part.url:
        return digest_file(Path(part.url))
    with read_errors(part):
        file_system, path = _file_system(part.url)
        info = _call(file_system.info, path)
        if mark := next((f"{name}:{info[name]}" for name in CONTENT_MARKS if info.get(name)), None):
            return f"{mark}:{part.size}"
        with raw(part) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def opened(part: FilePart) -> Iterator[io.BufferedReader[Any]]:
    """Open a file, decompressed by its suffix. Raises StageError if it is unreadable, of another format, or truncated.

    A truncated file is an error because its documents are not all of the documents.
    """
    with read_errors(part), raw(part) as file:
        if part.url.endswith(COMPRESSIONS[1:]) and not file.peek(1):
            raise EOFError("it is empty")
        if part.url.endswith(".gz"):
            yield io.BufferedReader(gzip.GzipFile(fileobj=file), BUFFER_BYTES)
        elif part.url.endswith(".zst"):
            import pyarrow as pa

            # Unlike zstandard's own reader, Arrow's reports a truncated last frame.
            frames = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
            yield io.BufferedReader(frames, BUFFER_BYTES)
        else:
            yield file


@contextmanager
def raw(part: FilePart) -> Iterator[io.BufferedReader[Any]]:
    """Open a file as stored. The stream is seekable."""
    if "://" in part.url:
        file_system, path = _file_system(part.url)
        with _call(file_system.open, path, "rb") as stored:
            remote = io.BufferedReader(_Remote(stored), BUFFER_BYTES)
            with tracking_position(lambda: remote.tell() - part.start):
                yield remote
    else:
        with (
            unchanged(part),
            io.BufferedReader(io.FileIO(part.url), BUFFER_BYTES) as file,
            tracking_position(lambda: file.tell() - part.start),
        ):
            yield file


@contextmanager
def unchanged(part: FilePart) -> Iterator[None]:
    """Raises StageError if a local file changed after it was listed: what was read belongs to neither version."""
    _check_unchanged(part)
    yield
    _check_unchanged(part)


def _check_unchanged(part: FilePart) -> None:
    if part.modified_ns and os.stat(part.url).st_mtime_ns != part.modified_ns:
        raise StageError(f"{part.url} was changed after the step began: run the step again when it is complete")


@contextmanager
def read_errors(part: FilePart) -> Iterator[None]:
    """Convert the errors of reading into a StageError that names the file."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        suffix = PurePosixPath(part.url).suffix
        words = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        words = "it no longer exists" if isinstance(error, FileNotFoundError) else words
        kind = f" as {suffix}" if suffix in COMPRESSIONS else ""
        raise StageError(f"{part.url} cannot be read{kind}: {words}") from None


def _local(pattern: str) -> Iterator[FilePart]:
    base = _base(pattern)
    # A file that is also reached through links has its shortest name, even if links form a circle.
    for match in sorted(glob.glob(pattern, recursive=True), key=lambda path: (path.count(os.sep), path)):
        file = Path(match)
        if file.is_file():
            found = file.stat()
            name = file.relative_to(base).as_posix()
            yield FilePart(name, found.st_size, url=match, modified_ns=found.st_mtime_ns)


def _remote(pattern: str) -> Iterator[FilePart]:
    try:
        file_system, path = _file_system(pattern)
        file_system.invalidate_cache()  # of an earlier listing
        if glob.has_magic(path):
            found = _call(partial(file_system.glob, detail=True), path)
        else:
            found = {path: _call(file_system.info, path)}
    except FileNotFoundError as error:
        if (cause := error.__cause__) is None:
            return
        raise StageError(f"reader.paths: {pattern} cannot be listed: {cause}") from None
    except (OSError, ValueError, ImportError) as error:
        raise StageError(f"reader.paths: {pattern} cannot be listed: {error}") from None
    base = _base(path).as_posix()
    for name, info in sorted(found.items()):
        if info["type"] == "file":
            below = PurePosixPath(name).relative_to(base).as_posix()
            yield FilePart(below, int(info["size"] or 0), url=file_system.unstrip_protocol(name))


class _Remote(io.RawIOBase):
    """A file that fsspec opened, with bounded reads, and with the errors of its library as OSError."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        position: int = _call(self._file.seek, offset, whence)
        return position

    def tell(self) -> int:
        position: int = self._file.tell()
        return position

    def readinto(self, buffer: Any) -> int:
        data = _call(self._file.read, len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _call(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call a file system, with its errors as OSError (those of botocore, for example, are not)."""
    try:
        return call(*arguments)
    except (OSError, ImportError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _file_system(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    return url_to_fs(url)  # type: ignore[no-any-return]


def _base(pattern: str) -> Path:
    """The folder before the first wildcard of a glob; the folder of the file without one."""
    parts = Path(pattern).parts
    fixed = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:fixed])
