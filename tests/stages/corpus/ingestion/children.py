"""Ingestion in a child process, to be killed or measured. The server that children fork from imports it once."""

from __future__ import annotations

import multiprocessing
import resource
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy  # noqa: F401
import pyarrow.compute
import pyarrow.parquet  # noqa: F401

from stages.corpus.card import html_page  # noqa: F401
from stages.corpus.deduplication import exact  # noqa: F401
from stages.corpus.ingest import IngestCorpus
from stages.corpus.ingestion import assembly, decisions, writing  # noqa: F401
from tests.support import RecordingContext


def run(values: dict[str, Any], out: Path, scratch: Path, peak: Path | None = None) -> None:
    """Ingest; with `peak`, write the peak memory before and after there."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out.mkdir(parents=True)
    scratch.mkdir(parents=True, exist_ok=True)
    IngestCorpus(**values).run(RecordingContext(out, scratch, draw=False))
    if peak:
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak.write_text(f"{before * 1024} {after * 1024}")


def start(values: dict[str, Any], out: Path, scratch: Path, peak: Path | None = None) -> BaseProcess:
    """Start the child. It begins at once, since the server that it forks from has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    child = context.Process(target=run, args=(values, out, scratch, peak))
    child.start()
    return child
