"""The word list finds its idioms where people read them, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project.prose import files, findings
from tests.project.support import ROOT


def written(folder: Path, name: str, text: str) -> list[str]:
    (folder / name).write_text(text)
    return list(findings(folder / name))


@pytest.mark.parametrize(
    "text",
    [
        "The step goes on.",
        "It starts anew.",
        "The planner is told how.",
        "This is no artifact.",
        "The file lies in the store.",
        "Give so many ranks.",
        "a thread of its\nown",
    ],
)
def test_an_idiom_is_found(tmp_path: Path, text: str) -> None:
    assert len(written(tmp_path, "page.md", text)) == 1
    assert len(written(tmp_path, "docstring.py", f'"""{text}"""\n')) == 1
    assert len(written(tmp_path, "message.py", f'x = 1\nraise ValueError(f"""{text} {{x}}""")\n')) == 1
    assert len(written(tmp_path, "comment.py", f"x = 1  # {text.splitlines()[0]}\n")) == (0 if "\n" in text else 1)


@pytest.mark.parametrize(
    "text",
    [
        "There is no room. It is no longer there, and is no larger than before.",
        "The text goes on to explain.",
        "The value lies between 0 and 1; besides, it is known. A belief.",
        "`told` and `lies` are names.",
        "```\nrun anew\n```",
    ],
)
def test_plain_english_passes(tmp_path: Path, text: str) -> None:
    assert written(tmp_path, "page.md", text) == []


def test_code_is_not_prose(tmp_path: Path) -> None:
    assert written(tmp_path, "code.py", 'told = {"beside": 1}\nanew = told["beside"]\n') == []


def test_of_tests_names_and_docstrings_and_comments_are_prose_and_data_is_not(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(
        '"""It starts anew."""\n'
        'TEXTS = ["It goes on.", f"It is told {1}."]\n\n\n'
        "def test_it_goes_on() -> None:\n"
        '    """It lies\n    here."""\n'
        '    assert told == "This is no text."  # it is no text\n'
    )
    lines = [finding.split(":")[0] for finding in findings(file, tests=True)]
    assert lines == ["1", "5", "6", "8"]


def test_the_line_is_that_of_the_match(tmp_path: Path) -> None:
    assert written(tmp_path, "page.md", "One.\nTwo.\nThree anew.")[0].startswith("3: ")
    assert written(tmp_path, "code.py", '\n\n"""One.\nTwo, anew."""\n')[0].startswith("4: ")


def test_the_pages_and_the_code_are_checked() -> None:
    names = {str(path.relative_to(ROOT)) for path in files()}
    assert {"README.md", "docs/pipelines.md", "stages/base.py", "conf/config.yaml", "tests/conftest.py"} <= names
