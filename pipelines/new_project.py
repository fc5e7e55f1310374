"""`bloomline new DIR`: writes a small project of the user's own, which runs at once.

It has a pipeline, a package with one stage and a test of the stage, and a pyproject.toml that names both.
"""

from __future__ import annotations

import keyword
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from cluster.terminal_text import say
from pipelines.errors import BloomlineError
from pipelines.session import Session

FILES = {
    "pyproject.toml": """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "$package"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["bloomline"]

[project.entry-points."bloomline.stages"]
count_words = "$package.count_words:CountWords"

[tool.bloomline]
packages = ["$package"]
config = "conf"
pipeline = "$package"

[tool.hatch.build.targets.wheel]
packages = ["$package"]

[tool.pytest.ini_options]
pythonpath = ["."]
""",
    "README.md": """\
# $package

    bloomline plan                                  # what would run, and why
    bloomline run                                   # runs conf/pipeline/$package.yaml
    bloomline run steps.words.minimum=2             # only the words that occur twice
    bloomline run steps.words.text=README.md        # the words of another file
    bloomline stages count_words                    # the fields of the stage
    python -m pytest                                # needs pip install pytest

`$package/count_words.py` is a stage, `conf/pipeline/$package.yaml` is the pipeline that uses it, and `pyproject.toml`
names both. The results are in `.bloomline/`.
""",
    "text.txt": """\
the quick brown fox jumps over the lazy dog
the dog sleeps and the fox runs
""",
    "conf/pipeline/$package.yaml": """\
# @package _global_
# Counts the words of a text.
defaults:
  - override /cluster: inline # in this process; remove the line for a Ray cluster on this machine

name: $package

steps:
  words: {stage: count_words, text: text.txt}
""",
    "$package/__init__.py": "",
    "$package/count_words.py": '''\
"""Counts the words of a text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import PositiveInt, model_validator
from stages.base import Artifact, ArtifactError, Context, External, Stage, StageError


@dataclass(frozen=True)
class WordCounts(Artifact):
    """How often each word occurs: counts.json."""

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = json.loads((self.path / "counts.json").read_text("utf-8"))
        return found

    def check(self) -> None:
        if not (self.path / "counts.json").is_file():
            raise ArtifactError(f"{self.path} has no counts.json")


class TextFile(External):
    """A file of text. Its content is part of the result; its path is not."""

    path: Path

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str) else value

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        if not self.path.is_file():
            raise StageError(f"{self.path} is not a file; expected a file of text")
        return digest_file(self.path)


class CountWords(Stage):
    """Counts how often each word of a text occurs."""

    headline: ClassVar[str] = "distinct_words"  # the metric that the table of a run shows
    spawns: ClassVar[bool] = False  # `run` uses neither ctx.gang nor ctx.map nor ctx.serve, so it starts without Ray

    text: TextFile
    minimum: PositiveInt = 1  # words that occur less often are left out

    def run(self, ctx: Context) -> WordCounts:
        words = Counter(self.text.path.read_text("utf-8").split())
        kept = {word: count for word, count in words.most_common() if count >= self.minimum}
        (ctx.out / "counts.json").write_text(json.dumps(kept, indent=2), "utf-8")
        ctx.metrics({"words": words.total(), "distinct_words": len(kept)})
        ctx.highlight("The most frequent words", ", ".join(list(kept)[:5]))
        return WordCounts(ctx.out)
''',
    "tests/test_count_words.py": """\
from pathlib import Path
from unittest.mock import MagicMock

from $package.count_words import CountWords
from stages.base import Context


def test_counts_words(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be")
    context = MagicMock(spec=Context, out=tmp_path)
    made = CountWords(text=str(text), minimum=2).run(context)
    made.check()
    assert made.counts() == {"to": 2, "be": 2}
""",
    ".gitignore": """\
.bloomline/
__pycache__/
""",
}


def command(words: Sequence[str], overrides: list[str], composed: Any, session: Session) -> int:
    """`new DIR`."""
    if len(words) != 1 or overrides:
        raise BloomlineError("new: expected one word, the directory of the new project: `bloomline new my_project`.")
    directory = Path(words[0])
    package = write(directory)
    say(f"Wrote the project {package} to {directory}. Next:")
    say(f"  cd {shlex.quote(str(directory))} && bloomline run")
    return 0


def write(directory: Path) -> str:
    """Write the project; the name of its package. Raises BloomlineError if the directory is there and not empty."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise BloomlineError(f"new: {directory} is not empty; expected an empty directory, or one that does not exist.")
    package = package_name(directory.resolve().name)
    for name, text in FILES.items():
        file = directory / Template(name).substitute(package=package)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(Template(text).substitute(package=package), "utf-8")
    return package


def package_name(directory: str) -> str:
    """A name that Python and bloomline accept for the package of a project: `My-Words 2` -> `my_words_2`.

    Raises BloomlineError for a keyword of Python, and for the name of a module that can be imported already.
    """
    from importlib.util import find_spec

    name = re.sub(r"[^a-z0-9]+", "_", directory.lower()).strip("_")
    if not name or name[0].isdigit():
        name = f"project_{name}".rstrip("_")
    taken = find_spec(name) is not None or name in ("conf", "tests")
    if keyword.iskeyword(name) or taken:
        reason = "there is a module of that name" if taken else "that is a keyword of Python"
        raise BloomlineError(
            f"new: the package of the project would be {name!r}, and {reason}. Choose another name for the directory."
        )
    return name
