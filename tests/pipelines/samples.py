"""A small run as values, for the tests of tracking, report and terminal."""

from __future__ import annotations

import hashlib
import struct
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.base import Message
from pipelines import run_history
from pipelines.process_identity import this_process
from pipelines.run_history import History
from pipelines.store import Store
from pipelines.summary import RunSummary, StepSummary


def png(path: Path) -> Path:
    """A picture of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00\x30\x60\x90")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return path


def step(name: str, inputs: tuple[str, ...] = (), **fields: Any) -> StepSummary:
    defaults: dict[str, Any] = {
        "stage": name,
        "state": "done",
        "reason": "no artifact yet",
        "fingerprint": hashlib.sha256(name.encode()).hexdigest(),
        "config": {"size": 3, "schedule": {"kind": "cosine", "warmup_steps": 4}},
        "seconds": 1.5,
        "artifact": f"/store/{name}",
        "artifact_type": name.title(),
        "size_bytes": 4096,
    }
    return StepSummary(name=name, inputs=inputs, **(defaults | fields))


def run(directory: Path, run_id: str = "run-1", **fields: Any) -> RunSummary:
    """Corpus (a dataset) -> pretrain (a model) -> quantize (a model) -> deploy (registers it)."""
    figure = png(directory / "loss.png")
    page = directory / "card.html"
    page.write_text("<!doctype html><title>Card</title><p>7 documents")
    steps = (
        step(
            "corpus", artifact_role="dataset", artifact_type="Corpus", facts={"documents": 7}, pages={"card.html": page}
        ),
        step(
            "pretrain",
            ("corpus",),
            artifact_role="model",
            artifact_type="Checkpoint",
            headline=("validation_loss", 2.5),
            metrics={"validation_loss": 2.5, "training_loss": 0.0},
            figures={"loss": figure},
            config={"learning_rate": 0.001, "prompt": "x" * 20_000},
        ),
        step("quantize", ("pretrain",), artifact_role="model", artifact_type="Checkpoint", metrics={"ratio": 3.9}),
        step(
            "deploy",
            ("quantize",),
            metrics={"time_to_first_token_ms": 20.0},
            facts={"registered_name": "demo", "alias": "champion"},
            highlights={"Served": "hello <world>"},
        ),
    )
    defaults: dict[str, Any] = {
        "pipeline": "demo",
        "command": "bloomline run pipeline=demo",
        "started": time.time() - 10,
        "seconds": 10.0,
        "state": "done",
        "steps": steps,
        "config_yaml": "name: demo\n",
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "git_dirty": True,
        "versions": {"python": "3.11"},
    }
    return RunSummary(run_id=run_id, **(defaults | fields))


def waiting(summary: StepSummary) -> StepSummary:
    """The step as it is before it runs."""
    nothing: dict[str, Any] = {"metrics": {}, "highlights": {}, "figures": {}, "pages": {}, "facts": {}}
    return replace(summary, state="waiting", seconds=None, headline=None, artifact=None, size_bytes=None, **nothing)


def points(name: str, count: int, first: int = 0) -> list[Message]:
    """The messages of a curve: `training_loss` falls by one a step, to 0."""
    return [
        Message(name, "metrics", {"values": {"training_loss": float(count - 1 - at)}, "at": at, "time": 1e9 + at})
        for at in range(first, count)
    ]


def replay(observer: Any, sample: RunSummary, curve: int = 20) -> None:
    """Send an observer the events of a whole run, in the order in which the runner sends them."""
    observer.run_started(replace(sample, state="running", steps=tuple(waiting(step) for step in sample.steps)))
    for summary in sample.steps:
        if summary.state not in ("cached", "skipped"):
            observer.step_started(replace(waiting(summary), state="running"))
            if summary.name == "pretrain":
                for message in points("pretrain", curve):
                    observer.step_message(message)
            for name, path in summary.figures.items():
                observer.step_message(Message(summary.name, "figure", {"name": name, "path": path}))
            for name, path in summary.pages.items():
                observer.step_message(Message(summary.name, "page", {"name": name, "path": path}))
        observer.step_finished(summary, None)
    observer.run_finished(sample)


def leave_running(store: Store, run: RunSummary) -> None:
    """Leave the record of a run in progress, as a driver that is killed does."""
    record = run_history.record_of(run, {step.name: step for step in run.steps}, this_process())
    store.files.write(f"runs/{run.run_id}/run.json", record.model_dump_json().encode())


def remember(store: Store, tmp_path: Path, run_id: str, curve: int = 20, **fields: Any) -> None:
    """Have the store remember a run."""
    replay(History(store), run(tmp_path, run_id, **fields), curve)
