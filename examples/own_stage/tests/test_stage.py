"""The stage by itself: no cluster, no store."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from reading_time.stage import ReadingTime, Texts, count_words

from stages.base import StageError


def test_words_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two\nthree")
    assert count_words(tmp_path / "a.txt") == 3


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no \.txt file below"):
        Texts(folder=tmp_path).files()


def test_a_speed_of_zero_is_refused() -> None:
    with pytest.raises(ValidationError):
        ReadingTime(texts=Texts(folder=Path("text")), words_per_minute=0)
