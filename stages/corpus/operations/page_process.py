"""Extracts the texts of web pages in a separate process, which the kernel ends when a page takes too long.

A page can be made so that libxml2 or a regular expression of trafilatura needs hours for it, in C code that no
exception interrupts. The bound is in CPU time, which does not depend on the load of the machine as elapsed time does.
Frames go through the pipes, a length of four bytes and that many bytes: of a request, its options in JSON and its page;
of an answer, JSON. The process ends at the end of its input, which is also the death of its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import IO, Any

READY = b"ready"
MESSAGE_CHARACTERS = 200
LENGTH = struct.Struct("<I")


class PageError(Exception):
    """A page from which no text could be extracted."""


class TooSlowError(PageError):
    """A page whose extraction took more CPU time than allowed."""


class PageProcess:
    """Extracts one page at a time. The process starts with the first page, and again after a page that ended it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def extract(self, page: str, options: Mapping[str, Any], cpu_s: int) -> str | None:
        """The main text of a page; None if it has none. `options`: the keyword arguments of `trafilatura.extract`.

        Raises TooSlowError after `cpu_s` seconds of CPU time, and PageError if the extraction fails.
        """
        with self._lock:
            process = self._running()
            request = json.dumps({"options": dict(options), "cpu_s": cpu_s}).encode()
            try:
                _send(_pipe(process.stdin), request, page.encode("utf-8", "surrogatepass"))
                answer = _receive(_pipe(process.stdout))
            except BrokenPipeError:
                answer = None
            if answer is None:
                self._process = None
                ended = _end(process)
                if ended == -signal.SIGXCPU:
                    raise TooSlowError(f"more than {cpu_s} s of CPU time")
                how = signal.Signals(-ended).name if ended < 0 else f"exit code {ended}"
                raise PageError(f"the extraction ended with {how}")
        found: dict[str, str | None] = json.loads(answer)
        if error := found.get("error"):
            raise PageError(error)
        return found["text"]

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            # As a file and without the folder of the file: nothing but trafilatura is imported, from where this
            # process would import it.
            path = os.pathsep.join(filter(None, sys.path))
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
            )
            if _receive(_pipe(self._process.stdout)) != READY:
                _end(self._process)
                self._process = None
                import trafilatura  # noqa: F401 - raises the ModuleNotFoundError that the process ended with

                raise RuntimeError(f"the process for web pages does not start: {sys.executable} {__file__}")
        return self._process


def shared_process() -> PageProcess:
    """The process of this process, which its operations share: it takes a second to start."""
    return _process_of(os.getpid())  # after a fork, the child must not write into the pipe of its parent


@lru_cache(maxsize=1)
def _process_of(_pid: int) -> PageProcess:
    return PageProcess()


def _end(process: subprocess.Popen[bytes]) -> int:
    """Close the pipes of a process that ended or ends by that; returns its exit code, negative for a signal."""
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):
            _pipe(pipe).close()
    return process.wait()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _send(pipe: IO[bytes], *frames: bytes) -> None:
    for frame in frames:
        pipe.write(LENGTH.pack(len(frame)))
        pipe.write(frame)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes | None:
    """The next frame; None at the end."""
    head = pipe.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    frame = pipe.read(size)
    return frame if len(frame) == size else None


def _limit_cpu(seconds: int) -> None:
    """Let the kernel end this process, with SIGXCPU, when it has used that much more CPU time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until the end of the input."""
    import logging

    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # pages without text are counted, not logged
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    _send(answers, READY)
    while (head := _receive(requests)) is not None and (page := _receive(requests)) is not None:
        request = json.loads(head)
        _limit_cpu(request["cpu_s"])
        try:
            text = trafilatura.extract(page.decode("utf-8", "surrogatepass"), **request["options"])
            answer = {"text": text}
        except Exception as error:  # whatever a page provokes is said of that page
            said = "".join(character for character in str(error) if character.isprintable())
            answer = {"error": f"{type(error).__name__}: {said[:MESSAGE_CHARACTERS]}"}
        _send(answers, json.dumps(answer).encode())


if __name__ == "__main__":
    # What a library prints must not get between the answers.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _serve(sys.stdin.buffer, channel)
