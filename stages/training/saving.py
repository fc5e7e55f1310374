"""Saving checkpoints while training goes on.

Rank 0 collects the state group by group and hands it to a thread that writes, syncs and digests it, then moves the
whole into place. One checkpoint is in flight at a time. The thread holds at most `checkpoint_buffer_bytes` of copies:
where a state is larger than that, handing it over waits for the disk. A checkpoint that could not be written leaves
the ones before it untouched, and ends training on all ranks with one error.
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
from stages.training.checkpoints import FOLDER, FORMAT, PARTIAL, STATE, digest_of, file_name, place, sync, whole_ones
from stages.training.recipe import Execution
from stages.training.zero import ShardedModel

Group = dict[str, Tensor]


class Saver:
    """The checkpoints of one run. `save` and `finish` are collectives; the rest is rank 0's business.

    `digest` names the recipe: only a run of the same recipe goes on from what is saved.
    """

    def __init__(self, scratch: Path, digest: str, execution: Execution, collectives: Collectives) -> None:
        self.scratch, self.digest, self.execution, self.collectives = scratch, digest, execution, collectives
        self._step: int | None = None  # the last one saved or being saved
        self._at = time.monotonic()
        self._writing: _Writing | None = None

    def start(self, step: int | None) -> None:
        """Training begins; the checkpoint of `step` is there already."""
        self._step, self._at = step, time.monotonic()

    def due(self, step: int) -> bool:
        """Whether a checkpoint should be saved after `step` steps."""
        every = self.execution.checkpoint_every_steps
        if every and step % every == 0:
            return True
        return time.monotonic() - self._at >= self.execution.checkpoint_every_s

    @property
    def failed(self) -> bool:
        """Whether the checkpoint in flight has already failed; `finish` raises why."""
        return self._writing is not None and self._writing.error is not None

    def save(self, step: int, model: ShardedModel, progress: Mapping[str, Any]) -> None:
        """Take the state after `step` steps and begin to write it, once the checkpoint before it is written."""
        if step == self._step:
            return
        self.finish()
        state = {"format": FORMAT, "step": step, "recipe": self.digest, "progress": progress}
        if self.collectives.rank == 0:
            self._writing = _Writing(self.scratch, state, self.execution)
        for index in range(len(model.groups)):
            tensors = model.collect(index)
            if self._writing is not None and tensors is not None:
                self._writing.put(tensors)
        if self._writing is not None:
            self._writing.close(complete=True)
        self._step, self._at = step, time.monotonic()

    def finish(self) -> None:
        """Wait until the checkpoint in flight is in its place. Raises StageError, on every rank, if it could not be
        written."""
        writing, self._writing = self._writing, None
        error = (writing.wait() if writing else None) or ""
        told = self.collectives.text_from_first(error)
        if told:
            raise StageError(told)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Whatever ends training, a checkpoint that was handed over whole is written to its end."""
        if self._writing is not None:
            self._writing.wait()


class _Writing:
    """One checkpoint on its way to the disk."""

    def __init__(self, scratch: Path, state: Mapping[str, Any], execution: Execution) -> None:
        self.folder, self.state, self.execution = scratch / FOLDER, state, execution
        self.error: str | None = None
        self._groups: deque[Group] = deque()
        self._held_bytes = 0
        self._closed = self._complete = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    def put(self, group: Group) -> None:
        """Hand the next group over; waits while the thread holds too much."""
        size = sum(tensor.nbytes for tensor in group.values())
        limit = self.execution.checkpoint_buffer_bytes
        with self._changed:
            self._changed.wait_for(lambda: self.error or not self._held_bytes or self._held_bytes + size <= limit)
            if not self.error:
                self._groups.append(group)
                self._held_bytes += size
            self._changed.notify_all()

    def close(self, complete: bool) -> None:
        """No more groups come. If they are not `complete`, what was written is removed."""
        with self._changed:
            self._complete = self._complete or complete
            self._closed = True
            self._changed.notify_all()

    def wait(self) -> str | None:
        """Wait for the end; why the checkpoint could not be written, if it could not."""
        self.close(complete=False)
        self._thread.join()
        return self.error

    def _run(self) -> None:
        partial = self.folder / f"{PARTIAL}{self.state['step']}"
        try:
            self._write(partial)
        except Exception as error:  # whatever it is, training must hear of it
            shutil.rmtree(partial, ignore_errors=True)
            with self._changed:
                self.error = self._described(error)
                self._groups.clear()
                self._changed.notify_all()

    def _write(self, partial: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(f"{PARTIAL}*"):
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
        (partial / STATE).write_text(json.dumps({**self.state, "files": files}))
        sync(partial / STATE)
        sync(partial)
        target = place(self.folder.parent, self.state["step"])
        if target.exists():  # a damaged one of the same step
            shutil.rmtree(target)
        partial.rename(target)
        sync(self.folder)
        for old in whole_ones(self.folder)[: -self.execution.checkpoints_kept]:
            shutil.rmtree(old)

    def _next(self) -> Group | None:
        with self._changed:
            self._changed.wait_for(lambda: self._groups or self._closed)
            return self._groups.popleft() if self._groups else None

    def _described(self, error: Exception) -> str:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        kept = whole_ones(self.folder)
        before = f"the one before it, {kept[-1].name}, is whole" if kept else "there is none before it"
        return (
            f"the checkpoint of step {self.state['step']} could not be written to {self.folder}: {reason}; {before}. "
            "Make room there, and run again to go on from what is saved"
        )
