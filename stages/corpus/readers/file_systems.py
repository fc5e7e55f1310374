"""Files wherever they are: globs on local disks and on whatever fsspec knows (s3://, memory://, ...), and their bytes.

A file is known by its name below the fixed part of the glob that found it, so that moving a folder changes nothing.
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
from typing import Annotated, Any, BinaryIO

from pydantic import AfterValidator, Field

from stages.base import StageError
from stages.corpus.readers.read_position import following
from stages.corpus.readers.reader import Part, Reader, digest_of

COMPRESSIONS = ("", ".gz", ".zst")
BUFFER_BYTES = 1 << 20
CONTENT_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "sha256")  # what object stores tell of a file's content


@dataclass(frozen=True)
class FilePart(Part):
    """A file to read, or a range of one."""

    url: str = ""  # an absolute local path, or a URL
    modified_ns: int = 0  # of a local file, when it was found; 0: not known


def _absolute(paths: tuple[str, ...]) -> tuple[str, ...]:
    # Workers run elsewhere than the command did.
    return tuple(path if "://" in path else os.path.abspath(os.path.expanduser(path)) for path in paths)


Paths = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_absolute)]


class FileReader(Reader):
    """A reader of files that globs name, on file systems that every node sees."""

    paths: Paths  # globs; "**" crosses folders; local ones are relative to where the command runs

    def suffixes(self) -> tuple[str, ...]:
        """What the names of its files end with."""
        raise NotImplementedError

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        files = sorted([part.name, content_digest(part, digest_file)] for part in self.parts())
        return digest_of([files, self.options()])

    def parts(self) -> list[FilePart]:  # type: ignore[override]  # a Part of its own
        return find(self.paths, self.suffixes())


def compressed(*suffixes: str) -> tuple[str, ...]:
    """Each suffix plain and with those of the compressions that can be read."""
    return tuple(suffix + compression for suffix in suffixes for compression in COMPRESSIONS)


def find(paths: Sequence[str], suffixes: tuple[str, ...]) -> list[FilePart]:
    """The files that globs name, each once, by name. Raises StageError for none, and for one of another suffix."""
    found: dict[str, FilePart] = {}
    for pattern in paths:
        for part in _remote(pattern) if "://" in pattern else _local(pattern):
            if not part.name.endswith(suffixes):
                raise StageError(
                    f"reader.paths: {part.url} has no suffix that can be read; expected one of {', '.join(suffixes)}: "
                    f"narrow the glob {pattern}, convert the file, or use another reader"
                )
            found.setdefault(os.path.realpath(part.url) if "://" not in part.url else part.url, part)
    if not found:
        raise StageError(f"reader.paths: nothing matches {', '.join(paths)}")
    return sorted(found.values(), key=lambda part: (part.name, part.url))


def content_digest(part: FilePart, digest_file: Callable[[Path], str]) -> str:
    """What identifies a file's content: its SHA-256, or what the object store that holds it tells of it."""
    if "://" not in part.url:
        return digest_file(Path(part.url))
    with told(part):
        file_system, path = _file_system(part.url)
        info = _asked(file_system.info, path)
        if mark := next((f"{name}:{info[name]}" for name in CONTENT_MARKS if info.get(name)), None):
            return f"{mark}:{part.size}"
        with raw(part) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


@contextmanager
def opened(part: FilePart) -> Iterator[BinaryIO]:
    """A file's bytes, decompressed by its suffix. Raises StageError if it can't be read or is not what its suffix says.

    Compressed data that ends too early raises an error as well: fewer documents are never taken for all of them.
    """
    with told(part), raw(part) as file:
        if part.url.endswith(COMPRESSIONS[1:]) and not file.peek(1):  # type: ignore[attr-defined]  # it is buffered
            raise EOFError("it is empty")
        if part.url.endswith(".gz"):
            yield io.BufferedReader(gzip.GzipFile(fileobj=file), BUFFER_BYTES)  # type: ignore[arg-type]
        elif part.url.endswith(".zst"):
            import pyarrow as pa

            # Unlike zstandard's own reader, Arrow's notices that the last frame is cut short.
            frames = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
            yield io.BufferedReader(frames, BUFFER_BYTES)
        else:
            yield file


@contextmanager
def raw(part: FilePart) -> Iterator[BinaryIO]:
    """A file's bytes as stored; can be sought in."""
    if "://" in part.url:
        file_system, path = _file_system(part.url)
        with _asked(file_system.open, path, "rb") as stored:
            file = io.BufferedReader(_Remote(stored), BUFFER_BYTES)
            with following(lambda: file.tell() - part.start):
                yield file
    else:
        with (
            unchanged(part),
            open(part.url, "rb", BUFFER_BYTES) as file,
            following(lambda: file.tell() - part.start),
        ):
            yield file


@contextmanager
def unchanged(part: FilePart) -> Iterator[None]:
    """Raises StageError if a local file was changed since it was found: what was read is of neither version."""
    _hold(part)
    yield
    _hold(part)


def _hold(part: FilePart) -> None:
    if part.modified_ns and os.stat(part.url).st_mtime_ns != part.modified_ns:
        raise StageError(f"{part.url} was changed after the step began: run it again when nobody writes there")


@contextmanager
def told(part: FilePart) -> Iterator[None]:
    """Turns the errors of reading into a StageError that names the file."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        suffix = PurePosixPath(part.url).suffix
        words = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        words = "it is not there any more" if isinstance(error, FileNotFoundError) else words
        kind = f" as {suffix}" if suffix in COMPRESSIONS else ""
        raise StageError(f"{part.url} cannot be read{kind}: {words}") from None


def _local(pattern: str) -> Iterator[FilePart]:
    base = _base(pattern)
    # A file that links lead to as well goes by its shortest name, even where links make a circle.
    for match in sorted(glob.glob(pattern, recursive=True), key=lambda path: (path.count(os.sep), path)):
        file = Path(match)
        if file.is_file():
            found = file.stat()
            name = file.relative_to(base).as_posix()
            yield FilePart(name, found.st_size, url=match, modified_ns=found.st_mtime_ns)


def _remote(pattern: str) -> Iterator[FilePart]:
    try:
        file_system, path = _file_system(pattern)
        file_system.invalidate_cache()  # of what was there when it was last asked
        if glob.has_magic(path):
            found = _asked(partial(file_system.glob, detail=True), path)
        else:
            found = {path: _asked(file_system.info, path)}
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
    """What fsspec opened. Its own files read lines of any length, and raise whatever their library does."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        place: int = _asked(self._file.seek, offset, whence)
        return place

    def tell(self) -> int:
        place: int = self._file.tell()
        return place

    def readinto(self, buffer: Any) -> int:
        data = _asked(self._file.read, len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _asked(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a file system answers, its errors as OSError: botocore's, for one, are not."""
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
    """The folder before the first part of a glob that has a wildcard; the file's folder if none has."""
    parts = Path(pattern).parts
    fixed = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:fixed])
