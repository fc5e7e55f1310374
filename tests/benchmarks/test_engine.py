"""The engine's benchmark judges tools by what they did: three simple tools with known faults, and bloomline."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from benchmarks.engine import DAMAGES, print_table, six_steps, thousand_steps
from benchmarks.engine_peers import Bloomline, Peer

# A tool of a few lines. `needed(step, out)` says whether it runs a step.
TOOL = """
import pathlib, sys
inputs = {"a": "", "b": "", "c": "ab", "d": "c", "e": "d", "f": "d"}
d_letter, trace, out = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path("out")
out.mkdir(exist_ok=True)
for step, takes in inputs.items():
    target = out / f"{step}.txt"
    if NEEDED:
        with trace.open("a") as file:
            file.write(step)
        letter = {"c": "", "d": d_letter}.get(step, step)
        target.write_text("".join((out / f"{name}.txt").read_text() for name in takes) + letter)
"""


class Tool(Peer):
    """A tool that runs a step where the Python expression `needed` is true."""

    module = "sys"
    needed: ClassVar[str]

    def set_up(self) -> list[Sequence[str]]:
        self.write("tool.py", TOOL.replace("NEEDED", self.needed))
        return []

    def run(self, d_letter: str = "d") -> Sequence[str]:
        return [sys.executable, "tool.py", d_letter, str(self.trace)]


class RunsEverything(Tool):
    name = "runs everything"
    needed = "True"


class LooksForFiles(Tool):
    name = "looks for files"
    needed = "not target.exists()"


class RunsAgainFromD(Tool):
    """Knows its parameter, but trusts every file."""

    name = "runs again from d"
    needed = "step in 'def' or not target.exists()"


class ForgetsF(Tool):
    name = "forgets f"
    needed = "step != 'f'"


class RefusesX(Tool):
    name = "refuses X"
    needed = "d_letter != 'X' or sys.exit(1)"


def judged(kind: type[Peer], folder: Path) -> dict[str, float | str | None]:
    return six_steps([kind(folder / "tool")], rounds=1, damages=list(DAMAGES))[kind.name]


def test_a_tool_that_runs_everything_is_right_and_does_too_much(tmp_path: Path) -> None:
    row = judged(RunsEverything, tmp_path)
    assert row["no-op ran"] == "abcdef"
    assert row["d changed ran"] == "abcdef"
    assert {row[damage] for damage in DAMAGES} == {"right"}


def test_a_tool_that_looks_for_files_misses_the_parameter_and_the_damage(tmp_path: Path) -> None:
    row = judged(LooksForFiles, tmp_path)
    assert "no-op ran" not in row
    assert row["d changed ran"] == "nothing"
    assert [row[damage] for damage in DAMAGES] == ["right", "WRONG", "WRONG", "WRONG"]


def test_a_tool_that_trusts_files_leaves_a_damaged_one_in_place(tmp_path: Path) -> None:
    row = judged(RunsAgainFromD, tmp_path)
    assert row["d changed ran"] == "def"
    assert [row[damage] for damage in DAMAGES] == ["right", "WRONG", "WRONG", "WRONG"]


def test_an_error_after_damage_is_not_a_wrong_result(tmp_path: Path) -> None:
    assert {judged(RefusesX, tmp_path)[damage] for damage in DAMAGES} == {"error"}


def test_a_tool_that_does_not_run_every_step_is_not_timed(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="cold run ran 'abcde', not 'abcdef'"):
        judged(ForgetsF, tmp_path)


@pytest.mark.slow
def test_bloomline_runs_what_a_change_needs_and_passes_on_no_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damages = ["deleted", "one byte, old time"]  # the one that is easiest to notice, and the hardest
    results = six_steps([Bloomline(tmp_path / "bloomline")], rounds=1, damages=damages)
    row = results["bloomline"]
    assert "no-op ran" not in row
    assert "plan ran" not in row
    assert row["d changed ran"] == "def"
    assert {row[damage] for damage in damages} == {"right"}
    for question in ("cold", "no-op", "plan", "d changed"):
        assert float(row[f"{question} s"] or 0) > 0
        assert float(row[f"{question}, processor s"] or 0) > 0
    print_table(results)
    assert "(1.0x)" in capsys.readouterr().out


def test_a_generated_pipeline_runs_each_step_once(tmp_path: Path) -> None:
    row = thousand_steps(tmp_path, 12, rounds=1)
    assert row.keys() == {"steps", "plan of all", "run of all", "plan", "no-op", "no-op after an edit"} | {
        f"{question}, processor" for question in ("plan of all", "run of all", "plan", "no-op", "no-op after an edit")
    }
    assert len(list((tmp_path / "store" / "records").iterdir())) == 12
    assert len(list((tmp_path / "store" / "artifacts" / "text").iterdir())) == 12  # later commands made no other
