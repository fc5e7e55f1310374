"""Tensors in safetensors files, one or several, read and written one at a time.

Reading looks at the headers first: names, shapes and types are known, and can be refused, before anything is
allocated. Writing lays the file out first and fills it as tensors come: the whole is never in memory.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stages.base import ArtifactError

HEADER_LIMIT_BYTES = 32 << 20  # a header takes about a hundred bytes a tensor
TYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int8: "I8",
}
BY_NAME = {name: dtype for dtype, name in TYPES.items()}


@dataclass(frozen=True)
class Entry:
    """What a header says of one tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class TensorFiles(Mapping[str, Tensor]):
    """The tensors of one or more files by name. Each is read when it is asked for, and not kept."""

    def __init__(self, paths: list[Path]) -> None:
        """Raises ArtifactError for a file that is missing or damaged, a type that is unknown, a name met twice."""
        self.entries: dict[str, Entry] = {}
        self._files: dict[str, Any] = {}
        self.paths: dict[str, Path] = {}
        with ExitStack() as stack:
            for path in paths:
                self._open(stack, path)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def _open(self, stack: ExitStack, path: Path) -> None:
        try:
            with path.open("rb") as raw:
                length = int.from_bytes(raw.read(8), "little")
            if length > HEADER_LIMIT_BYTES:
                raise ArtifactError(f"{path} is not a whole safetensors file: its header would have {length} bytes")
            file = stack.enter_context(safe_open(path, "pt"))
            names = list(file.keys())
        except FileNotFoundError:
            raise ArtifactError(f"{path} is missing") from None
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"{path} is not a whole safetensors file: {error}") from None
        for name in names:
            part = file.get_slice(name)
            if part.get_dtype() not in BY_NAME:
                raise ArtifactError(f"{path}: {name} is of type {part.get_dtype()}; known are {', '.join(BY_NAME)}")
            if name in self.entries:
                raise ArtifactError(f"{name} is in {self.paths[name]} and again in {path}")
            self.entries[name] = Entry(tuple(part.get_shape()), BY_NAME[part.get_dtype()])
            self._files[name], self.paths[name] = file, path


class TensorWriter:
    """A safetensors file whose tensors are known and come one at a time, in any order. A context: at its end the file
    is on disk and whole."""

    def __init__(self, path: Path, entries: Mapping[str, Entry]) -> None:
        self._path = path
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        self._offsets: dict[str, int] = {}
        end = 0
        for name, entry in sorted(entries.items(), key=lambda item: -item[1].dtype.itemsize):  # all stay aligned
            self._offsets[name] = end
            header[name] = {
                "dtype": TYPES[entry.dtype],
                "shape": list(entry.shape),
                "data_offsets": [end, end + entry.nbytes],
            }
            end += entry.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # tensors are aligned
        self._start = 8 + len(text)
        self._entries = dict(entries)
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._file.truncate(self._start + end)

    def write(self, name: str, tensor: Tensor) -> None:
        """Each tensor is written once; its shape and type are those announced."""
        entry = self._entries.pop(name)
        if (tuple(tensor.shape), tensor.dtype) != (entry.shape, entry.dtype):
            raise ValueError(f"{name} is {list(tensor.shape)} {tensor.dtype}, announced was {entry}")
        self._file.seek(self._start + self._offsets[name])
        self._file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                if self._entries:
                    raise ValueError(f"{self._path} was closed without {', '.join(self._entries)}")
                self._file.flush()
                os.fsync(self._file.fileno())
