"""Checkpoints of a training run, in one format for every number of ranks and every ZeRO stage.

    scratch/checkpoints/step-00000120/group-000.safetensors ...   master weights and moments, per parameter, unpadded
                                      state.json                  trainer state, digests of the files; written last

A stage can keep one of them in its artifact (`keep`), so that another training starts from it (`start_from`).

`checkpoint_writer.py` writes a checkpoint to a temporary folder and renames it, so that it exists completely or not at
all. The digest of every file is checked before a checkpoint is used; a damaged one is skipped with a note, and the one
before it is used instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stages.base import StageError
from stages.training.initial_weights import read_range
from stages.training.zero import ShardedModel

FORMAT = 1
FOLDER = "checkpoints"
PARTIAL = ".partial-"
KEPT = "training_state"  # the folder of the kept state in an artifact
STATE = "state.json"
STATE_LIMIT_BYTES = 256 << 20


@dataclass(frozen=True)
class Saved:
    """A complete checkpoint."""

    path: Path
    step: int  # optimizer steps done
    progress: Mapping[str, Any]  # the fields of the trainer state, JSON values
    files: tuple[str, ...]


def checkpoint_path(scratch: Path, step: int) -> Path:
    """The folder of the checkpoint of `step`."""
    return scratch / FOLDER / _folder_name(step)


def _folder_name(step: int) -> str:
    return f"step-{step:08d}"


def complete_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in `folder`, oldest first."""
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


def verify(path: Path, digest: str | None = None) -> Saved:
    """The checkpoint at `path`, after checking the digests of its files.

    Raises StageError if it is damaged, or if `digest` is given and the checkpoint belongs to another recipe, model or
    data set.
    """
    try:
        if (path / STATE).stat().st_size > STATE_LIMIT_BYTES:
            raise ValueError(f"larger than {STATE_LIMIT_BYTES} bytes")
        state = json.loads((path / STATE).read_text())
        found, step, recipe = state["format"], state["step"], state["recipe"]
        files, progress = state["files"], state["progress"]
        right_folder = path.name == _folder_name(step)
        if not isinstance(files, dict) or not isinstance(progress, dict) or not right_folder:
            raise ValueError("its fields are not those of a checkpoint")
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
    """The newest valid checkpoint of this recipe. `note` reports each one that is skipped, and why."""
    for path in reversed(complete_checkpoints(scratch / FOLDER)):
        try:
            return verify(path, digest)
        except StageError as error:
            note(f"skipped: {error}")
    return None


def restore(scratch: Path, model: ShardedModel, digest: str, note: Callable[[str], None]) -> Saved | None:
    """Restore the model from the newest valid checkpoint; None if there is none. Every rank must call it.

    Rank 0 checks the digests and chooses for all ranks; each rank reads the ranges that it owns. Raises StageError if
    reading fails.
    """
    collectives = model.collectives
    saved = latest(scratch, digest, note) if collectives.rank == 0 else None
    step = collectives.broadcast_int(saved.step if saved else -1)
    if step < 0:
        return None
    path = checkpoint_path(scratch, step)
    for index in range(len(model.groups)):
        with _opened(path / file_name(index)) as reader:
            model.restore(index, partial(read_range, reader))
    return saved or Saved(path, step, _read_progress(path), ())


def weights(path: Path) -> dict[str, Tensor]:
    """The master weights of the checkpoint at `path`: parameter name -> float32 tensor in the parameter's shape.

    Raises StageError if the checkpoint is damaged.
    """
    tensors: dict[str, Tensor] = {}
    for file in verify(path).files:
        tensors |= _read(path / file, prefix="master/")
    return {name.removeprefix("master/"): tensor for name, tensor in tensors.items()}


def keep(scratch: Path, last: int, kept_step: int | None, out: Path) -> int:
    """Copy the training state of step `kept_step` of a finished run to the artifact at `out`: that of its `last` step
    if it is None or the run ended before it. Returns its step. Raises StageError if it is damaged."""
    step = last if kept_step is None else min(kept_step, last)
    saved = verify(checkpoint_path(scratch, step))
    shutil.copytree(saved.path, out / KEPT / saved.path.name)
    return step


def kept_state(artifact: Path) -> Saved | None:
    """The training state that the artifact at `artifact` keeps, after checking it; None if it keeps none. Raises
    StageError if it is damaged."""
    found = complete_checkpoints(artifact / KEPT)
    return verify(found[-1]) if found else None


def start_from(path: Path, model: ShardedModel) -> Mapping[str, Any]:
    """Set the model to a kept training state that was checked before, and return the fields of its trainer state.
    Every rank must call it.

    Parameters are found by name, so they may be grouped in another way. Moments that the state does not have, of
    parameters that were not trained then, are zero. Raises StageError if reading fails.
    """
    with ExitStack() as stack:
        readers: dict[str, Any] = {}
        for file in sorted(path.glob("*.safetensors")):
            reader = stack.enter_context(_opened(file))
            readers |= dict.fromkeys(reader.keys(), reader)

        def read(name: str, start: int, stop: int) -> Tensor:
            if name in readers:
                return read_range(readers[name], name, start, stop)
            if name.startswith("master/"):
                raise StageError(f"{path} has no parameter {name.removeprefix('master/')}: it is of another model")
            return torch.zeros(stop - start)

        for index in range(len(model.groups)):
            model.restore(index, read)
    return _read_progress(path)


def _read_progress(path: Path) -> Mapping[str, Any]:
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
        raise StageError(
            f"{path} cannot be read ({error}): remove its folder to resume from the checkpoint before it"
        ) from error
