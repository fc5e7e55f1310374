"""Where the vectors of a group are kept between uses: in memory, or in a file that is mapped while they are used.

A `Home` is opened for as long as its vectors are needed. One in memory has them ready. One in a file (NVMe, say) maps
it and unmaps it, so that memory holds the open homes alone, however many there are: `coming` has threads read the file
ahead of its use, and closing has them write it and drop its pages. Such a file has no name: it is gone with its
process, however that ends, and nothing is ever restored from it. What is durable are checkpoints.

What is to be in host memory of a rank that computes on a GPU is in pinned memory there, and is updated by the CPU. On a
rank that computes on the CPU host memory is where everything is.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

import torch
from torch import Tensor

from stages.base import StageError
from stages.training.recipe import Place

Vectors = Mapping[str, Tensor]


class Home(Protocol):
    """Where a few vectors of a group are kept."""

    vectors: Vectors  # those that stay in memory, used or not
    file_bytes: int

    def coming(self) -> None:
        """The vectors will soon be used."""

    def opened(self, changed: bool = False) -> AbstractContextManager[Vectors]:
        """The vectors, for use inside; `changed`: they may be written to. Not to be kept longer than that."""


class InMemory:
    """Vectors that stay where they are."""

    file_bytes = 0

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors

    def coming(self) -> None:
        """They are there."""

    @contextmanager
    def opened(self, changed: bool = False) -> Iterator[Vectors]:
        yield self.vectors


class InFile:
    """Vectors in a file without a name, zero at first; in memory only while they are used."""

    def __init__(
        self, folder: Path, threads: ThreadPoolExecutor, dtype: torch.dtype, lengths: Mapping[str, int]
    ) -> None:
        self.vectors: Vectors = {}
        self.dtype, self.threads = dtype, threads
        self.places: dict[str, tuple[int, int]] = {}  # offset in bytes, elements
        end = 0
        for name, length in lengths.items():
            self.places[name] = (end, length)
            end += -(-length * dtype.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
        self.file_bytes = max(end, mmap.PAGESIZE)
        self.file = unnamed_file(folder, self.file_bytes)
        self.pending: Future[None] | None = None

    def coming(self) -> None:
        self.pending = self.threads.submit(self._read_ahead, self.pending)

    @contextmanager
    def opened(self, changed: bool = False) -> Iterator[Vectors]:
        if self.pending is not None:
            self.pending.result()
        mapped = mmap.mmap(self.file.fileno(), self.file_bytes)
        yield {
            name: torch.frombuffer(mapped, dtype=self.dtype, count=length, offset=offset)
            for name, (offset, length) in self.places.items()
        }
        # Out of memory now, though the mapping itself ends with the last reference to its vectors.
        mapped.madvise(mmap.MADV_DONTNEED)
        self.pending = self.threads.submit(self._write_back, changed)

    def _read_ahead(self, before: Future[None] | None) -> None:
        if before is not None:
            before.result()
        _advise(self.file, "POSIX_FADV_WILLNEED")

    def _write_back(self, changed: bool) -> None:
        if changed:
            os.fdatasync(self.file.fileno())
        _advise(self.file, "POSIX_FADV_DONTNEED")


@dataclass(frozen=True)
class Homes:
    """Makes the homes of one rank."""

    device: torch.device  # that it computes on
    folder: Path  # of files
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "offload"))

    def make(self, place: Place, dtype: torch.dtype, lengths: Mapping[str, int]) -> Home:
        """A home for vectors of these lengths, all zero."""
        if place == "file":
            return InFile(self.folder, self.threads, dtype, lengths)
        device = self.device_of(place)
        pinned = device.type == "cpu" and self.device.type == "cuda"
        return InMemory(
            {name: torch.zeros(n, dtype=dtype, device=device, pin_memory=pinned) for name, n in lengths.items()}
        )

    def device_of(self, place: Place) -> torch.device:
        """The device that works on what is kept at `place`."""
        return self.device if place == "none" else torch.device("cpu")


def unnamed_file(folder: Path, size: int) -> IO[bytes]:
    """A file of `size` zero bytes that no other process sees. Raises StageError if there is no room for it.

    The room is taken at once: a disk that fills up later would kill the process as it writes to a mapping.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed with what holds it
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    except OSError as error:
        raise StageError(
            f"{size} bytes of the training state could not be offloaded to {folder}: {error.strerror}. Make room "
            "there, or name another offload_folder"
        ) from error
    return file


def _advise(file: IO[bytes], advice: str) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, getattr(os, advice))
