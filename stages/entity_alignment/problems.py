"""What is wrong in the files of a pair of graphs: each problem with its file and line, refused or counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

from stages.base import StageError

EXAMPLES = 5  # of each kind, kept for people

OnProblem = Literal["refuse", "skip"]


class Problems:
    """Collects problems while files are read. `refuse` raises at the end of reading, with examples of every kind."""

    def __init__(self, on_problem: OnProblem) -> None:
        self._on_problem = on_problem
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, kind: str, path: Path, line: int, message: str) -> None:
        """`kind` groups problems, for example "dangling id"; the line (or row) counts from 1."""
        self.counts[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(f"{path.name}:{line}: {message}")

    def lines(self) -> tuple[str, ...]:
        """A line for each kind, with its number and examples."""
        return tuple(
            f"{count} x {kind}: {'; '.join(self._examples[kind])}" for kind, count in sorted(self.counts.items())
        )

    def settle(self) -> None:
        """Raise StageError if there are problems and they are refused."""
        if self.counts and self._on_problem == "refuse":
            listed = "\n  ".join(self.lines())
            total = self.counts.total()
            raise StageError(
                f"The files of the pair have {total} problem{'s' if total > 1 else ''}:\n  {listed}\n"
                "Correct the files, or set `problems: skip` to leave these lines out and count them."
            )
