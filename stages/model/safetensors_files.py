"""Tensors in one or several safetensors files, read and written one at a time.

A reader looks at the headers first: names, shapes and types are known, and can be refused, before anything is
allocated. A writer lays out the file first and fills it as tensors arrive, so the whole model is never in memory.
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

HEADER_LIMIT_BYTES = 32 << 20  # a header takes about a hundred bytes for each tensor
TYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int8: "I8",
}
BY_NAME = {name: dtype for dtype, name in TYPES.items()}


@dataclass(frozen=True)
class TensorHeader:
    """The shape and type of a tensor in a file."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class TensorFiles(Mapping[str, Tensor]):
    """The tensors of one or several files by name. Each is read when it is accessed, and is not kept.

    Access raises ArtifactError if the tensor has an infinity or NaN: whatever is computed from one is meaningless.
    """

    def __init__(self, paths: list[Path]) -> None:
        """Raises ArtifactError if a file is missing or damaged, has a tensor of an unknown type, or if two tensors have
        the same name."""
        self.headers: dict[str, TensorHeader] = {}
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
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ArtifactError(f"{self.paths[name]} holds values that are not finite, in {name}")
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.headers)

    def __len__(self) -> int:
        return len(self.headers)

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
                raise ArtifactError(f"{path}: {name} has type {part.get_dtype()}, expected one of {', '.join(BY_NAME)}")
            if name in self.headers:
                raise ArtifactError(f"{name} is in {self.paths[name]} and again in {path}")
            self.headers[name] = TensorHeader(tuple(part.get_shape()), BY_NAME[part.get_dtype()])
            self._files[name], self.paths[name] = file, path


class TensorWriter:
    """Writes one safetensors file whose headers are known before its tensors, which arrive one at a time in any order.

    It is a context manager: at its end the file is complete and on disk.
    """

    def __init__(self, path: Path, headers: Mapping[str, TensorHeader]) -> None:
        self._path = path
        layout: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        self._offsets: dict[str, int] = {}
        end = 0
        # The widest types come first, so that every tensor is aligned.
        for name, header in sorted(headers.items(), key=lambda item: -item[1].dtype.itemsize):
            self._offsets[name] = end
            layout[name] = {
                "dtype": TYPES[header.dtype],
                "shape": list(header.shape),
                "data_offsets": [end, end + header.nbytes],
            }
            end += header.nbytes
        text = json.dumps(layout, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._start = 8 + len(text)
        self._missing = dict(headers)
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._file.truncate(self._start + end)

    def write(self, name: str, tensor: Tensor) -> None:
        """Write a tensor, once. Raises ValueError if its shape or type is not that of its header."""
        header = self._missing.pop(name)
        if (tuple(tensor.shape), tensor.dtype) != (header.shape, header.dtype):
            raise ValueError(f"{name} is {list(tensor.shape)} {tensor.dtype}, but its header is {header}")
        self._file.seek(self._start + self._offsets[name])
        self._file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                if self._missing:
                    raise ValueError(f"{self._path} was closed without {', '.join(self._missing)}")
                self._file.flush()
                os.fsync(self._file.fileno())
