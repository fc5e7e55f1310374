"""Small stages for the engine's tests: texts that are made, joined and counted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from stages.base import (
    Artifact,
    ArtifactError,
    Config,
    Context,
    Demand,
    External,
    Resources,
    Runtime,
    Stage,
    StageError,
    Stopped,
)
from stages.registry import Registry

COMPANY_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Text(Artifact):
    """A text in one file."""

    is_dataset: ClassVar[bool] = True

    @property
    def text(self) -> str:
        return (self.path / "text.txt").read_text()

    def check(self) -> None:
        if not (self.path / "text.txt").is_file():
            raise ArtifactError(f"{self.path}: no text.txt")

    def describe(self) -> dict[str, object]:
        return {"characters": len(self.text)}


@dataclass(frozen=True)
class Number(Artifact):
    """A number in one file."""


class FileContent(External):
    """One file by content."""

    path: Path

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        if self.path.is_dir():
            raise StageError(f"{self.path} is a folder; expected a file")
        return digest_file(self.path)


class Style(Config):
    """A nested value with a field that does not matter."""

    upper: bool = False
    color: Runtime[str] = "red"


class Make(Stage):
    """Writes a text."""

    version: ClassVar[str] = "1"

    text: str = Field("hello", min_length=1, max_length=100)
    times: PositiveInt = 1
    style: Style = Style()
    source: FileContent | None = None
    mode: Literal["plain", "fancy"] = "plain"
    workers: Runtime[int] = Field(1, ge=0)

    def run(self, ctx: Context) -> Text:
        text = self.source.path.read_text() if self.source else self.text
        (ctx.out / "text.txt").write_text(text * self.times)
        ctx.metrics({"characters": len(text) * self.times})
        ctx.highlight("text", text)
        return Text(ctx.out)


class Frame(Config):
    """A nested value with an edge in it."""

    around: Text | None = None
    width: int = 1


class Join(Stage):
    """Joins texts; can wait, fail, ask for resources, or leave a trace of having run."""

    version: ClassVar[str] = "1"
    headline: ClassVar[str | None] = "length"

    texts: tuple[Text, ...]
    separator: str = " "
    frames: tuple[Frame, ...] = ()  # what stands before and after
    seconds: Runtime[float] = Field(0.0, ge=0)
    fail: Runtime[str] = ""  # "stage": a StageError, "bug": a ValueError, "once": only the first time
    ranks: Runtime[int] = 0
    gpus: Runtime[float] = 0
    memory_bytes: Runtime[int] = 0
    trace: Runtime[str] = ""  # a file that gets a line for every run
    company: Runtime[int] = 0  # runs with this trace that must have begun before this one continues
    chance: Runtime[bool] = False  # the result differs from run to run

    def demand(self) -> Demand:
        return Demand(
            task=Resources(gpus=self.gpus), ranks=self.ranks, rank=Resources(cpus=1, memory_bytes=self.memory_bytes)
        )

    def run(self, ctx: Context) -> Text:
        if self.trace:
            with open(self.trace, "a") as trace:
                trace.write(f"{ctx.step} begins {time.time()} {os.getpid()}\n")
        late = time.monotonic() + COMPANY_TIMEOUT_S
        while self.company and Path(self.trace).read_text().count(" begins ") < self.company:
            if time.monotonic() > late:
                raise StageError("nobody else began")
            time.sleep(0.01)
        end = time.monotonic() + self.seconds
        while (left := end - time.monotonic()) > 0:
            if ctx.stopping():
                (ctx.scratch / "stopped").write_text("saved")
                raise Stopped
            ctx.progress(self.seconds - left, self.seconds, "s")
            time.sleep(min(left, 0.05))
        once = ctx.scratch / "failed"
        if self.fail == "once" and not once.exists():
            once.write_text("")
            raise ValueError("the first time fails")
        if self.fail == "stage":
            raise StageError("the text is not to be joined")
        if self.fail == "bug":
            raise ValueError("a bug")
        joined = self.separator.join(text.text for text in self.texts)
        for frame in self.frames:
            around = frame.around.text * frame.width if frame.around else ""
            joined = around + joined + around
        if self.chance:
            joined += str(time.time_ns())
        (ctx.out / "text.txt").write_text(joined)
        ctx.metrics({"length": len(joined)})
        if self.trace:
            with open(self.trace, "a") as trace:
                trace.write(f"{ctx.step} ends {time.time()} {os.getpid()}\n")
        return Text(ctx.out)


class Count(Stage):
    """Counts the characters of a text; shows the count on a page."""

    version: ClassVar[str] = "1"

    text: Text
    factor: float = 1.0

    def run(self, ctx: Context) -> Number:
        (ctx.out / "number.txt").write_text(str(len(self.text.text) * self.factor))
        ctx.page("count.html", f"<p>{self.text.text} has {len(self.text.text)} characters")
        return Number(ctx.out)


STAGES = Registry(
    "bloomline.demo",
    "a stage",
    Stage,
    {"make": f"{__name__}:Make", "join": f"{__name__}:Join", "count": f"{__name__}:Count"},
)


def six_steps(**fields: Any) -> dict[str, dict[str, Any]]:
    """a, b -> c -> d -> e, f. `fields`: step__field=value."""
    steps: dict[str, dict[str, Any]] = {
        "a": {"stage": "make", "text": "a"},
        "b": {"stage": "make", "text": "b"},
        "c": {"stage": "join", "texts": ["a", "b"]},
        "d": {"stage": "join", "texts": ["c"]},
        "e": {"stage": "join", "texts": ["d"], "separator": "-"},
        "f": {"stage": "count", "text": "d"},
    }
    for key, value in fields.items():
        step, _, field = key.partition("__")
        steps[step][field] = value
    return steps
