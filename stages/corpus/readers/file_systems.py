"""Readers of files on local disks and on every file system that fsspec supports (s3://, zip://, memory://, ...).

`listing.py` finds the files and names them.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import AfterValidator, BeforeValidator, Field

from stages.addresses import redact_url
from stages.base import StageError
from stages.corpus.operations.operation import Drop
from stages.corpus.readers.compression import BUFFER_BYTES, ERRORS, compressed, compression_of, decompressed
from stages.corpus.readers.listing import list_files
from stages.corpus.readers.read_position import tracking_position
from stages.corpus.readers.reader import Candidate, Part, Reader, digest_of, usable
from stages.corpus.readers.remote_files import CHAIN, RemoteFile, absolute, call, file_system, is_url, stored_in

__all__ = ["FilePart", "FileReader", "compressed", "opened"]

CONTENT_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "sha256")  # by which object stores identify a file's content
BAD_FILE = "bad_file"
NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class FilePart(Part):
    """A file to read, or a range of one."""

    url: str = ""  # an absolute local path, or a URL
    modified_ns: int = 0  # of a local file when it was listed; 0: unknown
    error: str = ""  # why it cannot be read, if that is known already


class FileChangedError(StageError):
    """A file changed after it was listed, so that what was read belongs to neither version."""


Paths = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(lambda paths: (paths,) if isinstance(paths, str) else paths),
    Field(min_length=1),
    AfterValidator(lambda paths: tuple(map(absolute, paths))),  # workers run in other folders than the command
]
Excluded = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    AfterValidator(lambda globs: tuple(absolute(one) if "/" in one else one for one in globs)),
]


class FileReader(Reader):
    """A reader of files, given as globs, on file systems that every node sees."""

    paths: Paths  # globs, or folders; "**" crosses folders; local paths are relative to the folder of the command
    exclude: Excluded = ()  # globs of files to leave out: as in `paths`, or without "/", for names of files and folders
    bad_files: Literal["fail", "drop"] = "fail"  # that cannot be read: end the step, or enter them into the ledger

    def suffixes(self) -> tuple[str, ...]:
        """The suffixes of the files that it can read. Those of files may be in capitals."""
        raise NotImplementedError

    def digest_content(self, digest_file: Callable[[Path], str]) -> str:
        files = sorted((self._identity(part, digest_file) for part in self.parts()), key=lambda file: file[:2])
        return digest_of([files, self.options()])

    def parts(self) -> list[FilePart]:
        suffixes = tuple(suffix.lower() for suffix in self.suffixes())
        found = list_files(self.paths, self.exclude, suffixes)
        parts = [FilePart(**vars(one)) for one in found]
        if self.bad_files == "fail" and (bad := next((part for part in parts if part.error), None)):
            raise StageError(f"reader.paths: {bad.url}: {bad.error}: correct it, or set reader.bad_files to drop")
        return parts

    def options(self) -> dict[str, Any]:
        return {name: value for name, value in super().options().items() if name != "exclude"}  # the files show it

    def candidates(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        """As `read`, with labels from the folders of the path, and `bad_files` applied."""
        assert isinstance(part, FilePart)
        labels = self.path_labels(part)
        size = 0
        try:
            if part.error:
                raise StageError(f"{part.url} cannot be read: {part.error}")
            for candidate in self.read(part, max_bytes):
                size += candidate.size
                missing: dict[str, Any] = {
                    name: value for name, value in labels.items() if not getattr(candidate, name)
                }
                yield replace(candidate, **missing) if missing else candidate
        except FileChangedError:
            raise
        except StageError as error:
            if self.bad_files == "fail":
                leave_out = "to leave the file out, name it in reader.exclude, or set reader.bad_files to drop"
                raise StageError(f"{str(error).rstrip('.')}; {leave_out}") from error
            # What was read of it is kept, so only a file of which nothing was read counts with its size.
            drop = Drop(BAD_FILE, redact_url(str(error)), "")
            yield Candidate(b"", part.name, part.start, refused=drop, refused_bytes=0 if size else part.size)

    def path_labels(self, part: FilePart) -> Mapping[str, str]:
        """The labels (`url`, `package`, `license`, `language`) that folders give: "language=en/"."""
        found = path_fields(part.url)
        return {name: usable(found[name]) for name in ("url", "package", "license", "language") if name in found}

    def _identity(self, part: FilePart, digest_file: Callable[[Path], str]) -> list[Any]:
        labels = self.path_labels(part)
        try:
            content = part.error or content_digest(part, digest_file)
        except (OSError, StageError) as error:
            if self.bad_files == "fail":
                raise
            content = f"unreadable: {type(error).__name__}"
        return [part.name, content, labels] if labels else [part.name, content]


@lru_cache
def path_fields(url: str) -> Mapping[str, str]:
    """The fields in the names of the folders of a file, as Hive writes partitions: "a/language=pt%20BR/b.jsonl"."""
    pairs = [folder.split("=", 1) for folder in url.split("/")[:-1] if "=" in folder]
    return {name: unquote(value) for name, value in pairs if name and value and value != NO_PARTITION}


def content_digest(part: FilePart, digest_file: Callable[[Path], str]) -> str:
    """Identifies the content of a file: its SHA-256, or the digest that the object store reports.

    A member of an archive is identified by the content of the archive and its name.
    """
    if not is_url(part.url):
        return digest_file(Path(part.url))
    if CHAIN in part.url:
        member, _, inner = part.url.partition(CHAIN)
        return f"{member}{CHAIN}{content_digest(replace(part, url=inner), digest_file)}"
    with read_errors(part):
        system, path = file_system(part.url)
        info = call(system.info, path)
        if mark := next((f"{name}:{info[name]}" for name in CONTENT_MARKS if info.get(name)), None):
            return f"{mark}:{info.get('size') or part.size}"
        with raw(part) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def opened(part: FilePart) -> Iterator[io.BufferedReader[Any]]:
    """Open a file, decompressed by its suffix. Raises StageError if it is unreadable, of another format, or truncated.

    A truncated file is an error because its documents are not all of the documents.
    """
    with read_errors(part), raw(part) as file:
        yield decompressed(file, part.name)


@contextmanager
def raw(part: FilePart) -> Iterator[io.BufferedReader[Any]]:
    """Open a file as stored. The stream is seekable."""
    with unchanged(part):
        if is_url(part.url):
            system, path = file_system(part.url)
            with call(system.open, path, "rb") as stored:
                remote = io.BufferedReader(RemoteFile(stored), BUFFER_BYTES)
                with tracking_position(lambda: remote.tell() - part.start):
                    yield remote
        else:
            with (
                io.BufferedReader(io.FileIO(part.url), BUFFER_BYTES) as file,
                tracking_position(lambda: file.tell() - part.start),
            ):
                yield file


@contextmanager
def unchanged(part: FilePart) -> Iterator[None]:
    """Raises FileChangedError if a local file changed after it was listed."""
    _check_unchanged(part)
    yield
    _check_unchanged(part)


def _check_unchanged(part: FilePart) -> None:
    if part.modified_ns and os.stat(stored_in(part.url)).st_mtime_ns != part.modified_ns:
        raise FileChangedError(f"{part.url} was changed after the step began: run the step again when it is complete")


@contextmanager
def read_errors(part: FilePart) -> Iterator[None]:
    """Convert the errors of reading into a StageError that names the file."""
    try:
        yield
    except ERRORS as error:
        words = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        words = "it no longer exists" if isinstance(error, FileNotFoundError) else words
        suffix = compression_of(part.name)
        kind = f" as {suffix}" if suffix else ""
        raise StageError(f"{part.url} cannot be read{kind}: {words}") from None
