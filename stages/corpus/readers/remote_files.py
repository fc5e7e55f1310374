"""Access to the file systems of fsspec: s3://, memory://, archives (zip://*.jsonl::dumps.zip) and many others.

A URL may be a chain of file systems: "zip://a.jsonl::/data/dumps.zip" is a member of an archive, whose own address
follows the "::".
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

CHAIN = "::"


def is_url(path: str) -> bool:
    """Whether a path is an address of fsspec, rather than a local path."""
    return "://" in path


def absolute(path: str) -> str:
    """A path that does not depend on the working directory, also at the end of a chain. URLs are unchanged."""
    *outer, last = path.split(CHAIN) if is_url(path) else [path]
    last = last if is_url(last) else os.path.abspath(os.path.expanduser(last))
    return CHAIN.join((*outer, last))


def stored_in(url: str) -> str:
    """The address of the file that contains a member of an archive; any other address is returned unchanged."""
    return url.rpartition(CHAIN)[2] if is_url(url) else url


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path within it. Raises OSError, ValueError or ImportError."""
    from fsspec.core import url_to_fs

    try:
        found: tuple[Any, str] = url_to_fs(url)
    except (OSError, ValueError, ImportError):
        raise
    except Exception as error:
        raise _as_os_error(error) from error
    return found


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a file system, with its errors as OSError (those of botocore and zipfile, for example, are not)."""
    try:
        return function(*arguments)
    except (OSError, ImportError):
        raise
    except Exception as error:
        raise _as_os_error(error) from error


def _as_os_error(error: Exception) -> OSError:
    return OSError(f"{type(error).__name__}: {error}")


class RemoteFile(io.RawIOBase):
    """A file that fsspec opened, with bounded reads, and with the errors of its library as OSError."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        position: int = call(self._file.seek, offset, whence)
        return position

    def tell(self) -> int:
        position: int = self._file.tell()
        return position

    def readinto(self, buffer: Any) -> int:
        data = call(self._file.read, len(buffer))
        buffer[: len(data)] = data
        return len(data)
