"""Keeps what the processes of a step print: standard output and error, and messages of Python's `logging`.

A log is a directory of parts. Each is named by the offset of its first byte, so a gap between two parts is what was
dropped. The processes of a step write to such directories on the file system that all nodes share; the driver collects
them (`pipelines/logs/collector.py`). Until then they hold whatever was printed, and only their owner may read them.

A separate process writes through its file descriptors: what its libraries and children print is kept too, and what it
has printed stays when it is killed. Work in the driver's process is copied as Python prints it, and still reaches the
terminal. A directory that can't be written to, or a full disk, drops output and fails no work.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from cluster.outcome_capture import WorkError
from stages.base import StageError, Stopped

PART_BYTES = 1 << 20
MOST_PARTS = 4  # that wait to be collected: the first one and the newest
WATCH_INTERVAL_S = 0.5
DIGITS = 15  # of an offset in the name of a part
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
STANDARD = (1, 2)  # the file descriptors of standard output and error

_delivering = threading.local()


def part_name(offset: int) -> str:
    """The name of the part of a log that begins at this byte."""
    return f"{offset:0{DIGITS}d}"


def parts(directory: Path) -> list[tuple[int, Path]]:
    """The parts of a log on this disk with their offsets, in order."""
    try:
        names = sorted(name for name in os.listdir(directory) if len(name) == DIGITS and name.isdigit())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [(int(name), directory / name) for name in names]


class OutputFile:
    """The end of a log, to which one process appends. Thread-safe. Raises OSError only when it is opened."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        start, size = _end(directory)
        self._start = start if size < PART_BYTES else start + size
        self.descriptor = self._open()
        self.began_again = start + size > 0

    def write(self, text: str) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            if self.descriptor >= 0:
                os.write(self.descriptor, text.encode(errors="backslashreplace"))
        self.divide()

    def divide(self) -> bool:
        """Begin a new part if the current one is large, and drop a part of the middle if many wait. Whether it did."""
        with self._lock:
            try:
                size = os.fstat(self.descriptor).st_size
                if size < PART_BYTES:
                    return False
                self._start += size
                before, self.descriptor = self.descriptor, self._open()
                os.close(before)
                for _, path in parts(self._directory)[1 : 1 - MOST_PARTS]:
                    os.truncate(path, 0)  # a child of this process may still write to it
                    path.unlink()
            except OSError:  # it is closed, the disk is full, or the driver was faster
                return False
        return True

    def close(self) -> None:
        with self._lock:
            os.close(self.descriptor)
            self.descriptor = -1

    def _open(self) -> int:
        path = self._directory / part_name(self._start)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


@contextmanager
def redirected(directory: Path | None, *, marks_restart: bool = True) -> Iterator[None]:
    """Within, what this process prints goes to the log in `directory`. For a process that has no terminal.

    `marks_restart`: says in a log that holds something already that it begins again.
    """
    if directory is None or (log := _opened(directory)) is None:
        yield
        return
    if marks_restart:
        _mark_restart(log)
    flush()
    saved = [os.dup(number) for number in STANDARD]
    streams = sys.stdout, sys.stderr
    _point_to(log)
    sys.stdout, sys.stderr = (_stream(number) for number in STANDARD)
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(log, done), name="printed-output", daemon=True)
    watcher.start()
    try:
        with _logging_kept(sys.stderr), _trace_printed():
            yield
    finally:
        done.set()
        watcher.join()
        flush()
        sys.stdout, sys.stderr = streams
        for number, before in zip(STANDARD, saved, strict=True):
            os.dup2(before, number)
            os.close(before)
        log.close()


@contextmanager
def copied(directory: Path | None) -> Iterator[None]:
    """Within, what this process prints also goes to the log in `directory`. What the driver itself prints does not.

    What libraries and child processes write to the file descriptors is not copied.
    """
    if directory is None:
        yield
        return
    log = _LazyLog(directory)
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Copy(_terminal(stream), log) for stream in streams)
    try:
        with _logging_kept(log, logging.lastResort), _trace_printed(log):
            yield
    finally:
        # What replaced a stream meanwhile, such as a progress display that ended, has put its own back.
        sys.stdout, sys.stderr = streams
        log.close()


@contextmanager
def not_copied() -> Iterator[None]:
    """Within, what this thread prints is the driver's, not that of the work."""
    before = getattr(_delivering, "now", False)
    _delivering.now = True
    try:
        yield
    finally:
        _delivering.now = before


def claim(directory: Path, kind: str) -> Path:
    """A log in `directory` for this process alone, named `kind` and a number from 1 on."""
    key = directory, kind
    if key not in _claimed:
        number = 1
        while True:
            try:
                (directory / f"{kind}-{number}").mkdir(parents=True, mode=0o700)
            except FileExistsError:
                number += 1
                continue
            except OSError:  # nothing can be kept there, which is found again when the log is opened
                pass
            break
        _claimed[key] = directory / f"{kind}-{number}"
    return _claimed[key]


_claimed: dict[tuple[Path, str], Path] = {}


def flush() -> None:
    """Pass on what Python and the C library of this process hold back."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)


class _Raw(io.RawIOBase):
    """A file descriptor. What can't be written to it is dropped: a full disk must not end the work."""

    def __init__(self, number: int) -> None:
        self._number = number

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def write(self, content: Any) -> int:
        rest = memoryview(content).cast("B")
        length = len(rest)
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(self._number, rest) :]
        return length


def _stream(number: int) -> TextIO:
    raw: Any = _Raw(number)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


class _LazyLog:
    """A log that is opened by the first text: most steps print nothing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: OutputFile | None = None
        self._closed = False

    def write(self, text: str) -> int:
        if not self._closed and text:
            if self._file is None:
                self._file = _opened(self._directory)
                self._closed = self._file is None
                if self._file:
                    _mark_restart(self._file)
            if self._file:
                self._file.write(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self._closed = True
        if self._file:
            self._file.close()


class _Copy:
    """A stream of the terminal whose texts also go to a log."""

    def __init__(self, terminal: TextIO, log: _LazyLog) -> None:
        self._terminal = terminal
        self._log = log

    def write(self, text: str) -> int:
        if not getattr(_delivering, "now", False):
            self._log.write(text)
        return self._terminal.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._terminal, name)


def _terminal(stream: Any) -> TextIO:
    """The stream that a copy is made of: what a rank prints is not also its step's."""
    found: TextIO = stream._terminal if isinstance(stream, _Copy) else stream
    return found


@contextmanager
def _logging_kept(stream: Any, otherwise: logging.Handler | None = None) -> Iterator[None]:
    """Within, messages of level INFO and above are written to `stream` if the work has not set up logging itself.

    `otherwise`: the handler that shows them outside, for the levels that it shows.
    """
    root, level, last = logging.getLogger(), logging.getLogger().level, logging.lastResort
    if root.handlers:
        yield
        return
    logging.lastResort = _LastResort(stream, otherwise)
    root.setLevel(min(level, logging.INFO))
    try:
        yield
    finally:
        logging.lastResort = last
        root.setLevel(level)


class _LastResort(logging.StreamHandler):  # type: ignore[type-arg]
    def __init__(self, stream: Any, otherwise: logging.Handler | None) -> None:
        super().__init__(stream)
        self.setLevel(logging.INFO)
        self.setFormatter(logging.Formatter(FORMAT))
        self._otherwise = otherwise

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if self._otherwise and record.levelno >= self._otherwise.level:
            with not_copied():
                self._otherwise.emit(record)


@contextmanager
def _trace_printed(log: _LazyLog | None = None) -> Iterator[None]:
    """Print the traceback of an exception that ends the work, which the driver shows of one process only."""
    try:
        yield
    except (StageError, Stopped, KeyboardInterrupt, WorkError):
        raise
    except BaseException:
        (log or sys.stderr).write(traceback.format_exc())
        raise


def _opened(directory: Path) -> OutputFile | None:
    try:
        return OutputFile(directory)
    except OSError:
        return None


def _mark_restart(log: OutputFile) -> None:
    if log.began_again:
        log.write(f"--- begins again at {time.strftime('%Y-%m-%d %H:%M:%S')} ---\n")


def _end(directory: Path) -> tuple[int, int]:
    """The offset and the size of the last part of a log."""
    for start, path in reversed(parts(directory)):
        with contextlib.suppress(FileNotFoundError):
            return start, path.stat().st_size
    return 0, 0


def _point_to(log: OutputFile) -> None:
    for number in STANDARD:
        os.dup2(log.descriptor, number)


def _watch(log: OutputFile, done: threading.Event) -> None:
    while not done.wait(WATCH_INTERVAL_S):
        if log.divide():
            _point_to(log)
