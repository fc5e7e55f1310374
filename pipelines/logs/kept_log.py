"""The logs of a run in the store: where they are, and how they are read.

    runs/RUN/logs/STEP/step/OFFSET        what the step's own process printed
                       rank-1/OFFSET      a rank of its gang
                       worker-1/OFFSET    a worker of its map

A log is a directory of parts, each named by the offset of its first byte: between two parts with a gap something was
dropped. The last part is replaced as it grows, which works on an object store too.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cluster.printed_output import DIGITS, part_name
from cluster.terminal_text import clean
from pipelines.store import Store
from pipelines.summary import RunSummary

RAW_OUTPUT = "output"  # in the run's local directory: what its processes write, before it is collected
PLACE = re.compile(rf"([^/]+)/(step|rank-\d+|worker-\d+)/(\d{{{DIGITS}}})")

ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\^_])")  # colours, titles


@dataclass(frozen=True)
class KeptLog:
    """What one process printed."""

    step: str
    process: str  # "step", "rank-1" or "worker-1"
    parts: tuple[tuple[int, int], ...]  # (offset, size in bytes), in order

    @property
    def title(self) -> str:
        return self.process.replace("-", " ") if self.process != "step" else "its own process"

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return sum(size for _, size in self.parts)

    @property
    def dropped(self) -> int:
        """Bytes that were dropped between the beginning and the end."""
        return sum(self.parts[-1]) - self.size if self.parts else 0


def directory(run_id: str, step: str = "", process: str = "") -> str:
    """The directory in the store with the logs of a run, of a step of it, or of one of the step's processes."""
    return "/".join(part for part in ("runs", run_id, "logs", step, process) if part)


def logs(store: Store, run_id: str, step: str = "") -> list[KeptLog]:
    """The logs of a run, or of a step of it: of each step its own process first, then the others by number."""
    found: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for path, (size, _) in store.files.tokens(directory(run_id, step)).items():
        if place := PLACE.fullmatch(f"{step}/{path}" if step else path):
            found.setdefault((place[1], place[2]), []).append((int(place[3]), size))
    made = [KeptLog(name, process, tuple(sorted(parts))) for (name, process), parts in found.items()]
    return sorted(made, key=lambda log: (log.step, log.process != "step", *_numbered(log.process)))


def noting_silence(run: RunSummary, store: Store) -> RunSummary:
    """The run with the names of its failed steps of which no printed text was kept: there is no log to look at."""
    silent = []
    for step in run.steps:
        if step.state == "failed":
            with contextlib.suppress(OSError):
                if not any(log.size for log in logs(store, run.run_id, step.name)):
                    silent.append(step.name)
    return replace(run, silent=tuple(silent))


def read(store: Store, run_id: str, log: KeptLog, position: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """(Bytes that were dropped before it, the offset after it, content) of each part, from an offset on."""
    for offset, size in log.parts:
        if offset + size <= position:
            continue
        content = store.files.read(f"{directory(run_id, log.step, log.process)}/{part_name(offset)}")
        if content is None:  # it was dropped meanwhile
            continue
        content = content[max(position - offset, 0) :]
        dropped = max(offset - position, 0)
        position = max(offset, position) + len(content)
        yield dropped, position, content


def tail(store: Store, run_id: str, log: KeptLog, limit_bytes: int) -> str:
    """The last lines of a log, of at most that many bytes, as they are shown."""
    end = sum(log.parts[-1]) if log.parts else 0
    begin = max(end - limit_bytes, 0)
    content = b"".join(part for _, _, part in read(store, run_id, log, begin))[-limit_bytes:]
    if begin:  # the first line is the rest of one
        content = content.partition(b"\n")[2] or content
    return without_escapes(as_drawn(content.decode(errors="replace")))


def without_escapes(text: str) -> str:
    """A text without colours and other control sequences of a terminal."""
    return "\n".join(clean(line.rstrip("\r")) for line in ESCAPES.sub("", text).split("\n"))


def as_drawn(text: str) -> str:
    """A text without what a progress bar has written over."""
    return "\n".join(map(_last_drawn, text.split("\n"))) if "\r" in text else text


def _last_drawn(line: str) -> str:
    body = line.rstrip("\r")
    return body.rpartition("\r")[2] + line[len(body) :]


def _numbered(process: str) -> tuple[str, int]:
    kind, _, number = process.partition("-")
    return kind, int(number or 0)
