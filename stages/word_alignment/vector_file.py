"""A file of word vectors, as a stage names it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import model_validator

from stages.base import External, StageError


class VectorFile(External):
    """A file of word vectors, the most frequent word first. In YAML a path alone."""

    path: Path

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        files = [self.path, word_list(self.path)] if self.path.suffix == ".safetensors" else [self.path]
        for path in files:
            if not path.is_file():
                raise StageError(f"{path} is not a file: give the path of word vectors (.vec, .bin, .safetensors)")
        return hashlib.sha256(" ".join(digest_file(path) for path in files).encode()).hexdigest()


def word_list(path: Path) -> Path:
    """Where the words of a safetensors file are: one a line, in the order of the rows."""
    return path.with_suffix(".words.txt")
