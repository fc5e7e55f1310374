"""Collects what the processes of a run print into the store, without secrets and within bounds.

An observer of the runner. Its thread reads the files that the processes write (`cluster/printed_output.py`) every few
seconds, and those of a step once more when the step has ended. A store or disk that can't be written to costs output,
and never the run.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from pathlib import Path

from cluster.base import Message
from cluster.printed_output import part_name, parts
from pipelines.errors import disk_error
from pipelines.logs import leftovers
from pipelines.logs.kept_log import RAW_OUTPUT, as_drawn, directory
from pipelines.logs_config import LogsConfig
from pipelines.redaction import redacted
from pipelines.store import Record, Store
from pipelines.store.files import Files
from pipelines.summary import RunSummary, StepSummary

PART_BYTES = 1 << 16
LONGEST_LINE_BYTES = 1 << 16  # a longer line is divided
END_TIMEOUT_S = 60.0  # for the store to take the rest at the end of a run


class Collector:
    """Collects the logs of one run, from `run_started` to `run_finished`."""

    def __init__(self, config: LogsConfig, store: Store, run_id: str) -> None:
        self._config = config
        self._store = store
        self._run_id = run_id
        self._raw = store.config.state / "runs" / run_id / RAW_OUTPUT
        self._logs: dict[Path, _Log] = {}
        self._ended: set[str] = set()  # steps
        self._pipeline = ""
        self._trouble = ""
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)

    def run_started(self, run: RunSummary) -> None:
        self._pipeline = run.pipeline
        self._thread.start()

    def step_started(self, step: StepSummary) -> str | None:
        return None

    def step_message(self, message: Message) -> None:
        """Messages are not output."""

    def step_finished(self, step: StepSummary, record: Record | None) -> None:
        self._ended.add(step.name)
        self._wake.set()

    def run_finished(self, run: RunSummary) -> None:
        self.close()

    def close(self) -> None:
        """Collect the rest. Can be called again, and without `run_started`."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(END_TIMEOUT_S)

    def notes(self) -> tuple[str, ...]:
        """Notes for the end of the run; none if everything was kept."""
        if self._trouble:
            return (f"Not all that the steps printed could be kept: {self._trouble}",)
        return ()

    def _run(self) -> None:
        leftovers.collect(self._store, self._pipeline)
        closing = False
        while not closing:
            self._wake.wait(self._config.collect_interval_s)
            self._wake.clear()
            closing = self._closing.is_set()
            trouble = self._collect(closing)
            self._trouble = trouble if closing else ""

    def _collect(self, all_ended: bool) -> str:
        """Collect what is new. Returns why something could not be kept, or ""."""
        trouble = ""
        ended = set(self._ended)  # before anything is read
        for step in _folders(self._raw):
            whole = all_ended or step.name in ended
            kept = True
            for raw in _folders(step):
                try:
                    self._log(raw).collect(whole)
                except OSError as error:
                    trouble, kept = disk_error(error), False
            if whole and kept:
                shutil.rmtree(step, ignore_errors=True)
        if all_ended and not trouble:
            shutil.rmtree(self._raw, ignore_errors=True)
        return trouble

    def _log(self, raw: Path) -> _Log:
        if raw not in self._logs:
            place = directory(self._run_id, raw.parent.name, raw.name)
            self._logs[raw] = _Log(self._store.files, raw, place, self._config.largest_bytes)
        return self._logs[raw]


class _Log:
    """One log on its way to the store. Raises OSError; what could not be written then is tried again next time."""

    def __init__(self, files: Files, raw: Path, place: str, largest_bytes: int) -> None:
        self._files = files
        self._raw = raw
        self._place = place
        self._half_bytes = largest_bytes // 2
        self._part_bytes = min(PART_BYTES, largest_bytes // 8)
        self._raw_part, self._raw_read = 0, 0  # the part that is read, and how much of it was
        self._line = b""  # the beginning of a line
        self._sealed: list[tuple[int, int]] = []  # (offset, size) of parts in the store that don't grow any more
        self._offset, self._last = 0, b""  # of the part that grows
        self._written = 0  # bytes of it that the store has

    def collect(self, ended: bool) -> None:
        """Take what is new to the store. `ended`: the process has, so that its last line is whole."""
        self._write()
        while chunk := self._next():
            self._line += chunk
            self._take(_whole_lines(self._line))
            self._write()
        if ended and self._line:
            self._take(len(self._line))
            self._write()

    def _next(self) -> bytes:
        """More of what the process printed. Removes the parts that were read, but for the last one."""
        listed = parts(self._raw)
        for offset, path in listed:
            end = self._raw_part + self._raw_read
            if offset != self._raw_part:
                if offset < self._raw_part:
                    path.unlink(missing_ok=True)
                    continue
                if offset > end:  # the process was faster, and has dropped something itself
                    self._take(len(self._line))
                    self._begin_part(self._offset + len(self._last) + offset - end)
                self._raw_part, self._raw_read = offset, 0
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                file.seek(self._raw_read)
                if chunk := file.read(self._part_bytes):
                    self._raw_read += len(chunk)
                    return chunk
        return b""

    def _take(self, length: int) -> None:
        """Move this much of the collected bytes to the part that grows."""
        text, self._line = self._line[:length].decode(errors="replace"), self._line[length:]
        self._last += redacted(as_drawn(text)).encode(errors="replace")

    def _write(self) -> None:
        if len(self._last) > self._written:
            self._files.write(f"{self._place}/{part_name(self._offset)}", self._last)
            self._written = len(self._last)
        if len(self._last) >= self._part_bytes:
            self._begin_part(self._offset + len(self._last))
            self._drop_middle()

    def _begin_part(self, offset: int) -> None:
        if self._last:
            if len(self._last) > self._written:
                self._files.write(f"{self._place}/{part_name(self._offset)}", self._last)
            self._sealed.append((self._offset, len(self._last)))
        self._offset, self._last, self._written = offset, b"", 0

    def _drop_middle(self) -> None:
        """Remove the parts that are neither of the first half of the bytes that are kept nor of the last."""
        first, last = _within(self._sealed, self._half_bytes), _within(self._sealed[::-1], self._half_bytes)
        for offset, size in self._sealed[len(first) : len(self._sealed) - len(last)]:
            self._files.remove(f"{self._place}/{part_name(offset)}")
            self._sealed.remove((offset, size))


def _within(found: list[tuple[int, int]], limit_bytes: int) -> list[tuple[int, int]]:
    """As many of the first parts as are not larger than that together."""
    total, count = 0, 0
    while count < len(found) and total + found[count][1] <= limit_bytes:
        total, count = total + found[count][1], count + 1
    return found[:count]


def _whole_lines(content: bytes) -> int:
    """How many bytes are whole lines. A line that is too long is divided at a space, so that no secret is."""
    whole = max(content.rfind(b"\n"), content.rfind(b"\r")) + 1
    if whole or len(content) < LONGEST_LINE_BYTES:
        return whole
    return content.rfind(b" ") + 1 or len(content)


def _folders(parent: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(path for path in parent.iterdir() if path.is_dir())
    return []
