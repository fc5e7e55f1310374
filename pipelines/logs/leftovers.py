"""What the processes of a run printed and nobody collected, because the driver was killed.

It is in the run's local directory as it was printed: with secrets, for its owner alone. Only a process whose
configuration has the secrets of that run can hide them.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from cluster.printed_output import part_name, parts
from pipelines import run_history
from pipelines.logs import kept_log
from pipelines.logs.kept_log import RAW_OUTPUT, KeptLog, as_drawn
from pipelines.redaction import redacted
from pipelines.run_record import RunRecord
from pipelines.store import Store

COMPARED_BYTES = 4096  # the end of a log, which is looked for in what was printed


def collect(store: Store, pipeline: str) -> None:
    """Take what killed runs of a pipeline left to their logs. For a process with the pipeline's configuration.

    What can't be read or written stays where it is.
    """
    for run, raw in left(store):
        if run.pipeline == pipeline:
            with contextlib.suppress(OSError):
                kept = {(log.step, log.process): log for log in kept_log.logs(store, run.run_id)}
                for process in sorted(raw.glob("*/*")):
                    step = process.parent.name
                    log = kept.get((step, process.name)) or KeptLog(step, process.name, ())
                    _append(store, run.run_id, log, process)
                shutil.rmtree(raw)


def left(store: Store) -> Iterator[tuple[RunRecord, Path]]:
    """The killed runs of which output was left, and where it is."""
    for raw in sorted((store.config.state / "runs").glob(f"*/{RAW_OUTPUT}")):
        run = run_history.read(store, raw.parent.name)
        if run is not None and run.state == "killed":
            yield run, raw


def _append(store: Store, run_id: str, log: KeptLog, raw: Path) -> None:
    """Add to a log what was printed after its end. Raises OSError."""
    printed = b"".join(path.read_bytes() for _, path in parts(raw)).decode(errors="replace")
    text = redacted(as_drawn(printed)).encode(errors="replace")
    end = b"".join(content for _, _, content in kept_log.read(store, run_id, log))[-COMPARED_BYTES:]
    at = text.rfind(end) if end else -1
    rest = text[at + len(end) :] if at >= 0 else text
    if rest:
        place = kept_log.directory(run_id, log.step, log.process)
        store.files.write(f"{place}/{part_name(sum(log.parts[-1]) if log.parts else 0)}", rest)
