"""The place in the code that an error's message names."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from cluster.outcome_capture import capture_outcome
from stages.base import edges


@pytest.fixture
def longest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of a user's package. Its functions raise exceptions."""
    (tmp_path / "my_words").mkdir()
    (tmp_path / "my_words" / "__init__.py").write_text("def check() -> None:\n    assert False\n")
    (tmp_path / "my_words" / "longest.py").write_text(
        "import json\nfrom my_words import check\n"
        "def divide() -> float:\n    return 1 / 0\n"
        "def parse() -> object:\n    return json.loads('{')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("my_words.longest")
    for name in ("my_words", "my_words.longest"):
        del sys.modules[name]


def test_an_error_names_the_line_of_the_users_code(longest: ModuleType) -> None:
    error = capture_outcome("longest", longest.divide).error
    assert error == "ZeroDivisionError: division by zero (my_words/longest.py:4)"


def test_the_frames_of_a_library_are_left_out(longest: ModuleType) -> None:
    assert capture_outcome("longest", longest.parse).error.endswith(" (my_words/longest.py:6)")


def test_an_error_without_a_text_in_the_file_of_a_package(longest: ModuleType) -> None:
    assert capture_outcome("longest", longest.check).error == "AssertionError (my_words/__init__.py:2)"


def test_without_code_of_a_user_it_is_the_innermost_line() -> None:
    error = capture_outcome("step", edges, None).error
    assert re.search(r"^AttributeError: .* \(stages/base.py:\d+\)$", error)
