"""Checkpoints of a training run: one form for any number of ranks and any ZeRO stage.

    scratch/checkpoints/step-00000120/group-000.safetensors ...   master weights and moments, per parameter, unpadded
                                      state.json                  progress, digests of the files; written last

`stages/training/saving.py` writes one beside its place and renames it into it, so that it is there whole or not at all.
When read, every file's digest is checked; one that does not fit is passed over for the one before it, and that is said.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from stages.base import StageError
from stages.parallel.collectives import Collectives
from stages.training.materialise import stretch
from stages.training.zero import ShardedModel

FORMAT = 1
FOLDER = "checkpoints"
PARTIAL = ".partial-"
STATE = "state.json"
STATE_LIMIT_BYTES = 256 << 20


@dataclass(frozen=True)
class Saved:
    """A checkpoint found whole: where it is, and the progress that was saved with it."""

    path: Path
    step: int  # optimizer steps done
    progress: Mapping[str, Any]  # JSON values
    files: tuple[str, ...]


def place(scratch: Path, step: int) -> Path:
    """Where the checkpoint of `step` is."""
    return scratch / FOLDER / f"step-{step:08d}"


def whole_ones(folder: Path) -> list[Path]:
    """The checkpoints in their places, oldest first."""
    return sorted(folder.glob("step-*"))


def file_name(index: int) -> str:
    return f"group-{index:03d}.safetensors"


def digest_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def inspect(path: Path, digest: str | None = None) -> Saved:
    """The checkpoint at `path`, its digests checked. Raises StageError if it is damaged or of another recipe."""
    try:
        if (path / STATE).stat().st_size > STATE_LIMIT_BYTES:
            raise ValueError(f"larger than {STATE_LIMIT_BYTES} bytes")
        state = json.loads((path / STATE).read_text())
        found, step, recipe = state["format"], state["step"], state["recipe"]
        files, progress = state["files"], state["progress"]
        if not isinstance(files, dict) or not isinstance(progress, dict) or place(path.parent.parent, step) != path:
            raise ValueError("its fields are not what a checkpoint has")
        expected = {file: (facts["bytes"], facts["sha256"]) for file, facts in files.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(f"checkpoint {path}: {STATE} cannot be read ({error})") from error
    if found != FORMAT:
        raise StageError(f"checkpoint {path} has format {found}; this version reads format {FORMAT}")
    if digest not in (None, recipe):
        raise StageError(f"checkpoint {path} belongs to another recipe, model or data set")
    for index, (file, (size, sha256)) in enumerate(expected.items()):
        if file != file_name(index):
            raise StageError(f"checkpoint {path}: {STATE} names an unexpected file {file!r}")
        try:
            actual = (path / file).stat().st_size
            if actual != size:
                raise StageError(f"checkpoint {path}: {file} has {actual} bytes, not {size}")
            if digest_of(path / file) != sha256:
                raise StageError(f"checkpoint {path}: {file} does not have the digest it was written with")
        except OSError as error:
            raise StageError(f"checkpoint {path}: {file} cannot be read ({error})") from error
    return Saved(path, step, progress, tuple(expected))


def latest(scratch: Path, digest: str, note: Callable[[str], None]) -> Saved | None:
    """The newest whole checkpoint of this recipe; says by `note` which ones it passed over, and why."""
    for path in reversed(whole_ones(scratch / FOLDER)):
        try:
            return inspect(path, digest)
        except StageError as error:
            note(f"passed over: {error}")
    return None


def restore(scratch: Path, model: ShardedModel, digest: str, note: Callable[[str], None]) -> Saved | None:
    """Bring the model to the newest whole checkpoint; None if there is none. Every rank must call it.

    Rank 0 checks the digests and chooses for all; each rank reads what it owns.
    """
    collectives: Collectives = model.collectives
    saved = latest(scratch, digest, note) if collectives.rank == 0 else None
    step = collectives.from_first(saved.step if saved else -1)
    if step < 0:
        return None
    path = place(scratch, step)
    for index in range(len(model.groups)):
        with _opened(path / file_name(index)) as reader:
            model.restore(index, partial(stretch, reader))
    return saved or Saved(path, step, _progress(path), ())


def weights(path: Path) -> dict[str, Tensor]:
    """The master weights of the checkpoint at `path`: parameter name -> float32 tensor. Digests are checked."""
    tensors: dict[str, Tensor] = {}
    for file in inspect(path).files:
        tensors |= _read(path / file, prefix="master/")
    return {name.removeprefix("master/"): tensor for name, tensor in tensors.items()}


def _progress(path: Path) -> Mapping[str, Any]:
    progress: Mapping[str, Any] = json.loads((path / STATE).read_text())["progress"]
    return progress


def _read(path: Path, prefix: str = "") -> dict[str, Tensor]:
    with _opened(path) as reader:
        return {name: reader.get_tensor(name) for name in reader.keys() if name.startswith(prefix)}  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as reader:
            yield reader
    except (OSError, SafetensorError) as error:
        raise StageError(f"{path} cannot be read ({error}): remove its folder to go on from the one before") from error
