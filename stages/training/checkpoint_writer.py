"""Writes checkpoints while training continues.

Rank 0 collects the state group by group and passes it to a thread, which writes the files, syncs them, computes their
digests and then renames the folder to its final name. One checkpoint is written at a time. The thread holds at most
`checkpoint_buffer_bytes` of copies; while a larger state is collected, training waits for the disk. If a checkpoint
cannot be written, the ones before it stay intact, and training ends on all ranks with one error.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from threading import Condition, Thread
from types import TracebackType
from typing import Any, Self

from safetensors.torch import save_file
from torch import Tensor

from stages.base import StageError
from stages.parallel.collectives import Collectives
from stages.training.checkpoints import (
    FOLDER,
    FORMAT,
    PARTIAL,
    STATE,
    checkpoint_path,
    complete_checkpoints,
    digest_of,
    file_name,
    sync,
)
from stages.training.recipe import Execution
from stages.training.zero import ShardedModel

GroupTensors = dict[str, Tensor]


class CheckpointWriter:
    """The checkpoints of one run. Every rank must call `save` and `finish`.

    `digest` identifies the recipe, model and data: only a run with the same digest resumes from the checkpoints. That
    of `kept_step` is never removed.
    """

    def __init__(
        self, scratch: Path, digest: str, execution: Execution, collectives: Collectives, kept_step: int | None = None
    ) -> None:
        self.digest = digest
        self._kept_step = kept_step
        self._scratch, self._execution, self._collectives = scratch, execution, collectives
        self._step: int | None = None  # of the last checkpoint that was saved or is being saved
        self._saved_at = time.monotonic()
        self._write: _BackgroundWrite | None = None

    def start(self, step: int | None) -> None:
        """Training begins. `step`: of the checkpoint that it resumes from, if there is one."""
        self._step, self._saved_at = step, time.monotonic()

    def due(self, step: int) -> bool:
        """Whether a checkpoint should be saved after `step` steps."""
        every = self._execution.checkpoint_every_steps
        if every and step % every == 0:
            return True
        return time.monotonic() - self._saved_at >= self._execution.checkpoint_every_s

    @property
    def failed(self) -> bool:
        """Whether the checkpoint that is being written has failed; `finish` raises the error."""
        return self._write is not None and self._write.error is not None

    def save(self, step: int, model: ShardedModel, progress: Mapping[str, Any]) -> None:
        """Wait for the previous checkpoint, collect the state after `step` steps, and start to write it.

        `progress`: the fields of the trainer state, JSON values. Raises StageError, on every rank, if the previous
        checkpoint could not be written.
        """
        if step == self._step:
            return
        self.finish()
        state = {"format": FORMAT, "step": step, "recipe": self.digest, "progress": progress}
        if self._collectives.rank == 0:
            self._write = _BackgroundWrite(self._scratch, state, self._execution, self._kept_step)
        for index in range(len(model.groups)):
            tensors = model.collect(index)
            if self._write is not None and tensors is not None:
                self._write.put(tensors)
        if self._write is not None:
            self._write.close(complete=True)
        self._step, self._saved_at = step, time.monotonic()

    def finish(self) -> None:
        """Wait until the checkpoint that is being written is complete. Raises StageError, on every rank, if it could
        not be written."""
        write, self._write = self._write, None
        error = (write.wait() if write else None) or ""
        shared = self._collectives.broadcast_text(error)
        if shared:
            raise StageError(shared)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """However training ends, a checkpoint that was collected completely is written to its end."""
        if self._write is not None:
            self._write.wait()


class _BackgroundWrite:
    """One checkpoint, and the thread that writes it."""

    def __init__(self, scratch: Path, state: Mapping[str, Any], execution: Execution, kept_step: int | None) -> None:
        self._kept = None if kept_step is None else checkpoint_path(scratch, kept_step)
        self._folder, self._state, self._execution = scratch / FOLDER, state, execution
        self.error: str | None = None
        self._queue: deque[GroupTensors] = deque()
        self._held_bytes = 0
        self._closed = self._complete = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    def put(self, group: GroupTensors) -> None:
        """Pass on the next group. Waits while the thread holds too many bytes."""
        size = sum(tensor.nbytes for tensor in group.values())
        limit = self._execution.checkpoint_buffer_bytes
        with self._changed:
            self._changed.wait_for(lambda: self.error or not self._held_bytes or self._held_bytes + size <= limit)
            if not self.error:
                self._queue.append(group)
                self._held_bytes += size
            self._changed.notify_all()

    def close(self, complete: bool) -> None:
        """No more groups follow. Unless they are `complete`, the thread removes what it has written."""
        with self._changed:
            self._complete = self._complete or complete
            self._closed = True
            self._changed.notify_all()

    def wait(self) -> str | None:
        """Wait for the thread to end. Returns why the checkpoint could not be written, if so."""
        self.close(complete=False)
        self._thread.join()
        return self.error

    def _run(self) -> None:
        partial = self._folder / f"{PARTIAL}{self._state['step']}"
        try:
            self._write_files(partial)
        except Exception as error:  # training must report any failure of this thread
            shutil.rmtree(partial, ignore_errors=True)
            with self._changed:
                self.error = self._describe(error)
                self._queue.clear()
                self._changed.notify_all()

    def _write_files(self, partial: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for leftover in self._folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(leftover)
        partial.mkdir()
        files: dict[str, Any] = {}
        while (group := self._next()) is not None:
            path = partial / file_name(len(files))
            save_file(group, path)
            sync(path)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": digest_of(path)}
            with self._changed:
                self._held_bytes -= sum(tensor.nbytes for tensor in group.values())
                self._changed.notify_all()
        if not self._complete:
            shutil.rmtree(partial)
            return
        (partial / STATE).write_text(json.dumps({**self._state, "files": files}))
        sync(partial / STATE)
        sync(partial)
        target = checkpoint_path(self._folder.parent, self._state["step"])
        if target.exists():  # a damaged one of the same step
            shutil.rmtree(target)
        partial.rename(target)
        sync(self._folder)
        for old in complete_checkpoints(self._folder)[: -self._execution.checkpoints_kept]:
            if old != self._kept:
                shutil.rmtree(old)

    def _next(self) -> GroupTensors | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            return self._queue.popleft() if self._queue else None

    def _describe(self, error: Exception) -> str:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        complete = complete_checkpoints(self._folder)
        before = f"the previous one, {complete[-1].name}, is complete" if complete else "there is no previous one"
        return (
            f"the checkpoint of step {self._state['step']} could not be written to {self._folder}: {reason}; {before}. "
            "Free space there, and run again to resume from the last complete checkpoint"
        )
