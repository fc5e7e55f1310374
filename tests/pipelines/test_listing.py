"""The lists of stages and pipelines: `bloomline stages`, `bloomline pipelines`, and the reference page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import cli, reference
from pipelines.fields import Field, fields
from pipelines.listing import first_sentence
from tests.pipelines import demo

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "stages.md"

Command = Callable[..., tuple[int, str, str]]  # words of a command line -> exit code, standard output, error


@pytest.fixture
def bloomline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        code = cli.run(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_stages_are_listed_with_what_they_make(bloomline: Command) -> None:
    code, out, _ = bloomline("stages")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "Checkpoint" in lines["pretrain"]
    assert "TokenDataset" in lines["tokens"]


@pytest.mark.usefixtures("demo_stages")
def test_a_stage_is_shown_with_its_fields(bloomline: Command) -> None:
    code, out, _ = bloomline("stages", "join")
    assert code == 0
    assert "Reads Text; makes Text." in out
    identity, _, runtime = out.partition("Runtime: how the work is done")
    assert "texts      tuple[Text, ...]   required" in identity
    assert "what stands before and after" in identity
    assert "seconds" not in identity
    assert "seconds" in runtime
    assert "Frame: A nested value with an edge in it." in out
    code, _, err = bloomline("stages", "jion")
    assert code == 1
    assert err == "stages: 'jion'; expected the name of a stage. Did you mean 'join'?\n"


def test_fields_are_as_they_are_written() -> None:
    found = {field.name: field for field in fields(demo.Make)}
    assert found["times"] == Field("times", "PositiveInt", "1", "", False)
    assert found["workers"] == Field("workers", "int, >= 0", "1", "", True)
    assert found["source"].default == "null"
    assert found["style"].default == "{}"
    join = {field.name: field for field in fields(demo.Join)}
    assert join["texts"].default == ""
    assert join["trace"] == Field("trace", "str", '""', "a file that gets a line for every run", True)


def test_a_field_of_a_subclass_keeps_what_its_base_says() -> None:
    class More(demo.Join):
        """Joins more."""

        more: int = 1  # and more

    found = {field.name: field for field in fields(More)}
    assert found["more"].description == "and more"
    assert found["trace"].description == "a file that gets a line for every run"


def test_pipelines_are_listed_with_their_first_sentence(bloomline: Command, tmp_path: Path) -> None:
    (tmp_path / "own" / "pipeline").mkdir(parents=True)
    own = tmp_path / "own" / "pipeline" / "small.yaml"
    own.write_text("# @package _global_\n# Counts words. Then\n# it stops.\nname: small\nsteps: {}\n")
    code, out, _ = bloomline("pipelines")
    assert code == 0
    assert "small" not in {line.split()[0] for line in out.splitlines()}
    assert "The whole life of a small model" in out
    for where in (["--config-dir=own"], ["hydra.searchpath=[file://own]"]):
        code, out, err = bloomline("pipelines", *where)
        assert code == 0, err
        assert ["small", "own", "Counts", "words."] in [line.split() for line in out.splitlines()]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# @package _global_\n\n# One. Two.\nname: x", "One."),
        ("# One thing\n# and another\nname: x\n# Not this.", "One thing and another"),
        ("name: x\n# Not this.", ""),
    ],
)
def test_the_first_sentence_of_a_file(text: str, said: str) -> None:
    assert first_sentence(text.splitlines()) == said


def test_the_reference_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference.page(), "run: python -m pipelines.reference > docs/reference/stages.md"
