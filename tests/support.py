"""Helpers for the stage tests: a context that runs a stage in process, and the path of the test data."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stages.base import Application, Artifact, Rank, Resources, Served, Stage, Stopped

TEST_DATA = Path(os.environ.get("BLOOMLINE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def test_data(*parts: str) -> Path:
    """A path below the test data; skips the test where it is absent."""
    path = TEST_DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no test data at {path}: set BLOOMLINE_TEST_DATA to the folder that holds it")
    return path


test_data.__test__ = False  # type: ignore[attr-defined]  # a helper, not a test


def wait_for_mlflow(root: Path) -> None:
    """Return once MLflow has everything of the runs in a store. A short run leaves that to another process."""
    end = time.monotonic() + 120
    while left := list(root.glob("runs/*/spool/operations.jsonl")):
        assert time.monotonic() < end, left
        time.sleep(0.1)


@dataclass
class RecordingContext:
    """A Context for stage tests: one process, everything reported is kept."""

    out: Path
    scratch: Path
    step: str = "step"
    recorded: list[tuple[int | None, dict[str, float]]] = field(default_factory=list)
    progressed: list[tuple[float, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    highlights: dict[str, str] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)
    stop: bool = False
    draw: bool = True  # False: figures are named, not drawn, which takes longer than a small stage

    @property
    def last(self) -> dict[str, float]:
        """The last value of each metric."""
        return {name: value for _, values in self.recorded for name, value in values.items()}

    def progress(self, done: float, total: float, unit: str = "", /, **info: float | str) -> None:
        self.progressed.append((done, total))

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.recorded.append((step, dict(values)))

    def note(self, message: str) -> None:
        self.notes.append(message)

    def stopping(self) -> bool:
        return self.stop

    def figure(self, name: str, figure: Any, *, measured: bool = False) -> None:
        self.figures.append(name)
        if self.draw and not measured:
            path = self.out / "figures" / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            figure.savefig(path)

    def page(self, name: str, text: str) -> None:
        path = self.out / "pages" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def highlight(self, title: str, text: str) -> None:
        self.highlights[title] = text

    def gang(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        ranks: int,
        rank: Resources = Resources(),
        fallback_sizes: Mapping[int, Resources] = {},
        max_restarts: int = 0,
    ) -> list[Any]:
        return [function(Rank(0, 1, "", self), *arguments)]

    def map(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        *,
        workers: int = 0,
        resources: Resources = Resources(),
        max_retries: int = 3,
    ) -> Iterator[tuple[int, Any]]:
        for index, item in enumerate(items):
            if self.stop:
                raise Stopped
            yield index, function(item)

    def serve(self, application: Application) -> Served:
        raise RuntimeError("this context serves nothing")


def run_stage(
    stage: Stage, artifacts: Mapping[str, Artifact], directory: Path, draw: bool = True
) -> tuple[Any, RecordingContext]:
    """Run a stage in process below `directory`; its artifact (checked) and what it reported."""
    context = RecordingContext(directory / "out", directory / "scratch", draw=draw)
    context.out.mkdir(parents=True, exist_ok=True)
    context.scratch.mkdir(parents=True, exist_ok=True)
    artifact = stage.bind(artifacts).run(context)
    artifact.check()
    return artifact, context
