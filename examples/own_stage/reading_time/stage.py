"""The stage, the content that it reads, and the artifact that it produces."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import PositiveFloat

from stages.base import Artifact, ArtifactError, Context, External, Runtime, Stage, StageError


class Texts(External):
    """Text files below a folder. Moving the folder does not change what they are; editing a file does."""

    folder: Path

    def files(self) -> list[Path]:
        """Raises StageError if there are none."""
        found = sorted(self.folder.rglob("*.txt"))
        if not found:
            raise StageError(f"texts.folder: no .txt file below {self.folder.absolute()}; name a folder that has some.")
        return found

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        names = ((path.relative_to(self.folder).as_posix(), digest_file(path)) for path in self.files())
        return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()


@dataclass(frozen=True)
class ReadingTimes(Artifact):
    """Minutes by file, in `minutes.json`."""

    @property
    def minutes(self) -> dict[str, float]:
        found: dict[str, float] = json.loads((self.path / "minutes.json").read_text("utf-8"))
        return found

    def check(self) -> None:
        if not self.minutes or min(self.minutes.values()) < 0:
            raise ArtifactError(f"{self.path}/minutes.json: expected minutes of at least one file, none negative.")

    def describe(self) -> Mapping[str, object]:
        return {"files": len(self.minutes), "minutes": round(sum(self.minutes.values()), 1)}


class ReadingTime(Stage):
    """Minutes that a reader needs for each text. Produces ReadingTimes."""

    headline: ClassVar[str | None] = "minutes"

    texts: Texts
    words_per_minute: PositiveFloat = 200.0  # enters the fingerprint: another value is another result
    workers: Runtime[int] = 1  # does not: the result is the same for every number of workers

    def run(self, ctx: Context) -> ReadingTimes:
        files = self.texts.files()
        minutes: dict[str, float] = {}
        for index, words in ctx.map(count_words, files, workers=self.workers):
            minutes[files[index].relative_to(self.texts.folder).as_posix()] = words / self.words_per_minute
            ctx.progress(len(minutes), len(files), "files")
        ctx.metrics({"minutes": sum(minutes.values())})
        (ctx.out / "minutes.json").write_text(json.dumps(dict(_by_time(minutes)), indent=1), "utf-8")
        return ReadingTimes(ctx.out)


def count_words(path: Path) -> int:
    return len(path.read_text("utf-8").split())


def _by_time(minutes: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    yield from sorted(minutes.items(), key=lambda item: (-item[1], item[0]))
