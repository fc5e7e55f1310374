"""Shows on a terminal how many input files a plan has read, once that takes longer than a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from pipelines.formatting import size

FIRST_S = 1.0
INTERVAL_S = 0.25
CLEAR_LINE = "\r\x1b[K"


@contextmanager
def reading_meter(out: TextIO | None = None, first_s: float = FIRST_S) -> Iterator[Callable[[int], None] | None]:
    """A function to call with the size of each file that was read, in bytes; None if `out` is not a terminal.

    `out`: standard error, if not given. The line is removed at the end.
    """
    stream = sys.stderr if out is None else out
    if stream is None or not stream.isatty():
        yield None
        return
    files = total = 0
    next_at = time.monotonic() + first_s
    shown = False

    def read(bytes_: int) -> None:
        nonlocal files, total, next_at, shown
        files, total = files + 1, total + bytes_
        if (now := time.monotonic()) >= next_at:
            stream.write(f"{CLEAR_LINE}Reading input files: {files:,} ({size(total)})")
            stream.flush()
            shown, next_at = True, now + INTERVAL_S

    try:
        yield read
    finally:
        if shown:
            stream.write(CLEAR_LINE)
            stream.flush()
