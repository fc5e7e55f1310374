"""Extracts the texts of web pages and PDF files in a separate process, which the kernel ends when one takes too long.

A page can be made so that libxml2 or a regular expression of trafilatura needs hours for it, in C code that no
exception interrupts; a PDF file so that its streams decompress to gigabytes. The bound on time is in CPU time, which
does not depend on the load of the machine as elapsed time does. Frames go through the pipes, a length of four bytes and
that many bytes: of a request, its options in JSON and its content; of an answer, JSON. The process ends at the end of
its input, which is also the death of its parent.
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
from typing import IO, Any, Literal

Library = Literal["trafilatura", "pypdf"]  # what the process imports: for web pages, and for PDF files

READY = b"ready"
MESSAGE_CHARACTERS = 200
LENGTH = struct.Struct("<I")


class ExtractionError(Exception):
    """A content from which no text could be extracted."""


class TooSlowError(ExtractionError):
    """A content whose extraction took more CPU time than allowed."""


class ExtractionProcess:
    """Extracts one text at a time. The process starts with the first, and again after a content that ended it."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def extract(
        self, content: bytes, options: Mapping[str, Any], cpu_s: int, memory_bytes: int | None = None
    ) -> str | None:
        """The text of a content; None if it has none.

        `options`: the keyword arguments of `trafilatura.extract` for a page in UTF-8, or of `_pdf_text`. `cpu_s`:
        seconds of CPU time. `memory_bytes`: of the address space that the process may have; None: no bound.

        Raises TooSlowError after `cpu_s`, and ExtractionError if the extraction fails.
        """
        with self._lock:
            process = self._running()
            bounds = {"cpu_s": cpu_s, "memory_bytes": memory_bytes}
            try:
                _send(_pipe(process.stdin), json.dumps({"options": dict(options), **bounds}).encode(), content)
                answer = _receive(_pipe(process.stdout))
            except BrokenPipeError:
                answer = None
            if answer is None:
                self._process = None
                ended = _end(process)
                if ended == -signal.SIGXCPU:
                    raise TooSlowError(f"more than {cpu_s} s of CPU time")
                how = signal.Signals(-ended).name if ended < 0 else f"exit code {ended}"
                raise ExtractionError(f"the extraction ended with {how}")
        found: dict[str, str | None] = json.loads(answer)
        if error := found.get("error"):
            raise ExtractionError(error)
        return found["text"]

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            # As a file and without the folder of the file: nothing but the library is imported, from where this process
            # would import it.
            from stages.child_environment import child_environment

            path = os.pathsep.join(filter(None, sys.path))
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, self._library],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=child_environment({"PYTHONPATH": path}),
            )
            if _receive(_pipe(self._process.stdout)) != READY:
                _end(self._process)
                self._process = None
                _import(self._library)  # raises the ModuleNotFoundError that the process ended with
                raise RuntimeError(f"the process for texts does not start: {sys.executable} {__file__} {self._library}")
        return self._process


def shared_process(library: Library) -> ExtractionProcess:
    """The process of this process, which its operations and readers share: it takes a second to start."""
    return _process_of(os.getpid(), library)  # after a fork, the child must not write into the pipe of its parent


@lru_cache(maxsize=2)
def _process_of(_pid: int, library: Library) -> ExtractionProcess:
    return ExtractionProcess(library)


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


def _import(library: str) -> None:
    if library == "trafilatura":
        import trafilatura  # noqa: F401
    else:
        import pypdf  # noqa: F401


# ---------------------------------------------------------------------------------------------------------------
# In the process


def _limit(cpu_s: int, memory_bytes: int | None) -> None:
    """Let the kernel end this process, with SIGXCPU, when it has used `cpu_s` more seconds of CPU time, and refuse it
    more memory than `memory_bytes`."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + cpu_s)
    if memory_bytes is not None:
        _lower(resource.RLIMIT_AS, memory_bytes)


def _lower(kind: int, wanted: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _page_text(page: bytes, options: dict[str, Any]) -> str | None:
    import trafilatura

    text: str | None = trafilatura.extract(page.decode("utf-8", "surrogatepass"), **options)
    return text


class _RefusedError(Exception):
    """A content that is not extracted, with the reason."""


def _pdf_text(data: bytes, max_pages: int, max_bytes: int) -> str | None:
    """The text of a PDF file: its pages, with a blank line between two.

    Raises _RefusedError if it is encrypted, or has more pages or more text (bytes of UTF-8) than allowed.
    """
    import io

    import pypdf

    document = pypdf.PdfReader(io.BytesIO(data))
    if document.is_encrypted and not document.decrypt(""):
        raise _RefusedError("it is encrypted: remove its password")
    if len(document.pages) > max_pages:
        raise _RefusedError(f"it has {len(document.pages)} pages, of which at most {max_pages} are read")
    pages: list[str] = []
    size = 0
    for page in document.pages:
        text = page.extract_text().encode("utf-8", "replace").decode().strip()
        size += len(text.encode()) + 2
        if size > max_bytes:
            raise _RefusedError(f"its text is longer than {max_bytes} bytes")
        pages.append(text)
    return "\n\n".join(filter(None, pages)) or None


def _serve(library: str, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until the end of the input."""
    import logging

    _import(library)
    logging.getLogger(library).setLevel(logging.CRITICAL)  # what has no text is counted, not logged
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    _send(answers, READY)
    while (head := _receive(requests)) is not None and (content := _receive(requests)) is not None:
        request = json.loads(head)
        _limit(request["cpu_s"], request["memory_bytes"])
        try:
            options = request["options"]
            text = _page_text(content, options) if library == "trafilatura" else _pdf_text(content, **options)
            answer = {"text": text}
        except Exception as error:  # whatever a content provokes is said of that content
            said = "".join(character for character in str(error) if character.isprintable())
            named = "" if isinstance(error, _RefusedError) else f"{type(error).__name__}: "
            answer = {"error": f"{named}{said[:MESSAGE_CHARACTERS]}".rstrip(": ")}
        _send(answers, json.dumps(answer).encode())


if __name__ == "__main__":
    # What a library prints must not get between the answers.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _serve(sys.argv[1], sys.stdin.buffer, channel)
