"""Executes a step: opens its inputs, runs its stage, then checks, hashes and moves the artifact.

`execute` is the one function that the driver hands to the cluster. It knows the store and the stage; how it came to
run here, and how its gang is started, is the cluster's business.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cluster.base import Gang, Items, Launcher, Message, Send
from cluster.reporter import StepReporter
from pipelines.store import FileEntry, Record, Store, StoreConfig, json_values
from stages.base import Application, Artifact, Resources, Served, Stage, StageError

Item = TypeVar("Item")
T = TypeVar("T")

FIGURE_STYLE = Path(__file__).parent / "report" / "matplotlibrc"


@dataclass(frozen=True)
class Job:
    """A step that is ready to run, as plain values that are sent to its process."""

    step: str
    stage_name: str
    stage: Stage
    produces: type[Artifact]
    fingerprint: str
    inputs: Mapping[str, tuple[Record, type[Artifact]]]  # by step name
    store: StoreConfig
    output: Path  # what its processes print is kept there, until the driver collects it


@dataclass(frozen=True)
class Made:
    """An artifact at its final location, which has no record yet."""

    location: str
    files: tuple[FileEntry, ...]
    describe: Mapping[str, Any]
    seconds: float


def execute(job: Job, launcher: Launcher, send: Send) -> Made:
    """Run one step. Raises StageError (one clear message) or whatever the stage raises."""
    with launcher.keep_output(job.output):
        return _execute(job, launcher, send)


def _execute(job: Job, launcher: Launcher, send: Send) -> Made:
    store = Store(job.store, answered=True)  # the driver has read from it
    send(Message(job.step, "started", {}))
    os.environ.setdefault("MATPLOTLIBRC", str(FIGURE_STYLE))  # read when a stage imports matplotlib, if it does
    started = time.monotonic()
    artifacts = {name: kind(store.open(record)) for name, (record, kind) in job.inputs.items()}
    staged = store.stage(job.fingerprint)
    context = StepContext(job.step, staged, store.scratch(job.fingerprint), launcher, send)
    try:
        artifact = job.stage.bind(artifacts).run(context)
        if not isinstance(artifact, job.produces) or artifact.path != staged:
            raise StageError(
                f"Stage {job.stage_name} returned {artifact!r}; expected a {job.produces.__name__} at ctx.out. "
                "This is an error in the stage."
            )
        artifact.check()
        describe = json_values.plain(artifact.describe())
        files = store.list_files(staged)
        if not files:
            raise StageError(f"Stage {job.stage_name} wrote no file to ctx.out. This is an error in the stage.")
        location = store.location(job.stage_name, job.step, job.fingerprint)
        store.put(staged, location, files)
    except StageError:
        raise
    except OSError as error:
        raise StageError(f"{error.strerror or error}: {error.filename or staged}") from error
    finally:
        store.discard(staged)
    return Made(location, files, describe, time.monotonic() - started)


class StepContext(StepReporter):
    """The `Context` of a stage: paths in the store, messages to the driver, gangs and servers from the cluster."""

    def __init__(self, step: str, out: Path, scratch: Path, launcher: Launcher, send: Send) -> None:
        super().__init__(step, send)
        self.out = out
        self.scratch = scratch
        self._launcher = launcher

    def figure(self, name: str, figure: Any, *, measured: bool = False) -> None:
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=144, bbox_inches="tight")
        if not measured:
            path = self.out / "figures" / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(drawn.getvalue())
        self._send(Message(self.step, "figure", {"name": name, "png": drawn.getvalue()}))

    def page(self, name: str, text: str) -> None:
        path = self.out / "pages" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json_values.text(text), encoding="utf-8")
        self._send(Message(self.step, "page", {"name": name, "text": text}))

    def highlight(self, title: str, text: str) -> None:
        self._send(Message(self.step, "highlight", {"title": str(title), "text": str(text)}))

    def gang(
        self,
        function: Callable[..., T],
        *arguments: Any,
        ranks: int,
        rank: Resources = Resources(),
        fallback_sizes: Mapping[int, Resources] = {},
        max_restarts: int = 0,
    ) -> list[T]:
        return self._launcher.gang(
            self.step, Gang(function, arguments, ranks, rank, fallback_sizes, max_restarts), self._send
        )

    def map(
        self,
        function: Callable[[Item], T],
        items: Sequence[Item],
        *,
        workers: int = 0,
        resources: Resources = Resources(),
        max_retries: int = 3,
    ) -> Iterator[tuple[int, T]]:
        return self._launcher.map(self.step, Items(function, items, workers, resources, max_retries), self._send)

    def serve(self, application: Application) -> Served:
        return self._launcher.serve(application)
