"""Storage for the vectors of a group between uses: memory, or a file that is mapped while they are used.

`FileStorage` keeps vectors in a file (on NVMe, say) and maps it only while it is open, so that memory holds the open
storages alone, however many there are. `prefetch` reads the file ahead of its use in a background thread, and closing
writes it back and drops its pages. The file has no name: it disappears with its process, however that ends, and nothing
is ever restored from it. Checkpoints are what is durable.

On a rank that computes on a GPU, vectors in host memory are pinned and are updated by the CPU. On a rank that computes
on the CPU everything is in host memory already.
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
from stages.training.recipe import OffloadTarget

Vectors = Mapping[str, Tensor]


class Storage(Protocol):
    """Holds a few named one-dimensional vectors of a group."""

    vectors: Vectors  # those that are in memory even while the storage is closed
    file_bytes: int

    def prefetch(self) -> None:
        """Announce that the storage will be opened soon."""

    def open(self, changed: bool = False) -> AbstractContextManager[Vectors]:
        """The vectors, valid inside the context only. They may be written to if `changed`."""


class MemoryStorage:
    """Vectors that stay in memory."""

    file_bytes = 0

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors

    def prefetch(self) -> None:
        """Does nothing: the vectors are in memory."""

    @contextmanager
    def open(self, changed: bool = False) -> Iterator[Vectors]:
        yield self.vectors


class FileStorage:
    """Vectors in an unnamed file, initially zero; in memory only while the storage is open.

    `lengths`: elements of each vector. Raises StageError if `folder` has no space for them.
    """

    def __init__(
        self, folder: Path, threads: ThreadPoolExecutor, dtype: torch.dtype, lengths: Mapping[str, int]
    ) -> None:
        self.vectors: Vectors = {}
        self._dtype, self._threads = dtype, threads
        self._ranges: dict[str, tuple[int, int]] = {}  # offset in bytes, elements
        end = 0
        for name, length in lengths.items():
            self._ranges[name] = (end, length)
            end += -(-length * dtype.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
        self.file_bytes = max(end, mmap.PAGESIZE)
        self._file = unnamed_file(folder, self.file_bytes)
        self._pending: Future[None] | None = None

    def prefetch(self) -> None:
        self._pending = self._threads.submit(self._read_ahead, self._pending)

    @contextmanager
    def open(self, changed: bool = False) -> Iterator[Vectors]:
        if self._pending is not None:
            self._pending.result()
        mapped = mmap.mmap(self._file.fileno(), self.file_bytes)
        yield {
            name: torch.frombuffer(mapped, dtype=self._dtype, count=length, offset=offset)
            for name, (offset, length) in self._ranges.items()
        }
        # The mapping itself ends with the last reference to its vectors; this frees its memory now.
        mapped.madvise(mmap.MADV_DONTNEED)
        self._pending = self._threads.submit(self._write_back, changed)

    def _read_ahead(self, previous: Future[None] | None) -> None:
        if previous is not None:
            previous.result()
        _advise(self._file, "POSIX_FADV_WILLNEED")

    def _write_back(self, changed: bool) -> None:
        if changed:
            os.fdatasync(self._file.fileno())
        _advise(self._file, "POSIX_FADV_DONTNEED")


@dataclass(frozen=True)
class StorageFactory:
    """Creates the storages of one rank."""

    device: torch.device  # the device that the rank computes on
    folder: Path  # where files are created
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "offload"))

    def create(self, target: OffloadTarget, dtype: torch.dtype, lengths: Mapping[str, int]) -> Storage:
        """A storage at `target` for vectors of these lengths (in elements), all zero."""
        if target == "file":
            return FileStorage(self.folder, self.threads, dtype, lengths)
        device = self.device_for(target)
        pinned = device.type == "cpu" and self.device.type == "cuda"
        return MemoryStorage(
            {name: torch.zeros(n, dtype=dtype, device=device, pin_memory=pinned) for name, n in lengths.items()}
        )

    def device_for(self, target: OffloadTarget) -> torch.device:
        """The device that updates what is stored at `target`."""
        return self.device if target == "none" else torch.device("cpu")


def unnamed_file(folder: Path, size: int) -> IO[bytes]:
    """A file of `size` zero bytes that no other process can see. Raises StageError if there is no space for it.

    The space is allocated at once, because a disk that fills up later would kill a process that writes to a mapping.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed together with the storage that owns it
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    except OSError as error:
        raise StageError(
            f"{size} bytes of training state could not be offloaded to {folder}: {error.strerror}. Free space there, "
            "or set offload_folder to another disk"
        ) from error
    return file


def _advise(file: IO[bytes], advice: str) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, getattr(os, advice))
