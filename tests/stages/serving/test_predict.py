"""A checkpoint completes the prompts of a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.base import StageError
from stages.serving.predict import create
from tests.stages.huggingface.examples import checkpoint


def test_every_prompt_gets_a_text_and_values_out_of_range_are_refused(tmp_path: Path) -> None:
    predict = create(checkpoint(tmp_path))
    rows = [{"prompt": "a"}, {"prompt": "b"}]
    greedy = {"max_tokens": 3, "temperature": 0.0}
    texts = predict(rows, greedy)
    assert [list(row) for row in texts] == [["text"], ["text"]]
    assert predict(rows, greedy) == texts
    for wrong in ({"max_tokens": 0}, {"temperature": -0.5}, {"max_tokens": 10**6}):
        with pytest.raises(StageError, match=next(iter(wrong))):
            predict(rows, greedy | wrong)
