"""Standard input, output and error of the command, which a caller may have closed or stopped reading.

Output that can no longer be written (`bloomline run | head`, a terminal that is gone) does not end what a command does.
A text that the encoding of the output does not have is shown with replacement signs.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO


class _Lasting(io.FileIO):
    """Writes to a file descriptor until that fails; from then on what is written goes nowhere."""

    lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.lost = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def prepare() -> None:
    """Replace the standard streams of this process, and open those that are closed: Python has None in their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = _lasting(1, sys.stdout, "replace")
    sys.stderr = _lasting(2, sys.stderr, "backslashreplace")


def finish() -> OSError | None:
    """Write what is still buffered. Returns why output was lost, if not because its reader had read enough."""
    lost = None
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        if isinstance(raw, _Lasting) and raw.lost is not None and raw.lost.errno not in (errno.EPIPE, errno.EIO):
            lost = raw.lost
    return lost


def _lasting(number: int, before: TextIO | None, errors: str) -> TextIO:
    buffer = io.BufferedWriter(_Lasting(number, "wb", closefd=False))
    encoding = before.encoding if before is not None else "utf-8"
    direct = isinstance(before, io.TextIOWrapper) and before.write_through
    lines = number == 2 or buffer.isatty()
    return io.TextIOWrapper(buffer, encoding, errors, line_buffering=lines, write_through=direct)
