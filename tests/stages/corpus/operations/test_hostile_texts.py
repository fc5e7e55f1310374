"""No text makes an operation slow, or fail: each of many that were made for it is measured, changed or dropped."""

from __future__ import annotations

from typing import Any

import pytest

from stages.corpus.operations.operation import Draft, Drop
from stages.corpus.operations.registry import GROUPS
from tests.stages.corpus.operations.support import made

CHARACTERS = 20_000  # an operation that is quadratic in them needs minutes for all texts

PIECES = (
    "a", " ", "\n", "\t", "\r\n", "\u200b", "\u00a0", ".", "...", "-", "_", "=", "a ", "a\n", "\n\n", "1", "1 2 ",
    "0" * 30 + " ", "@", "a@", "a@a.", "a.b@", "https://", "http://a.b/c?", "www.", "1.1.1.", "::", "+1 (", "DE89 ",
    "sk-a", "AKIA", "ghp_",
    "<", "<a ", "</p>", "&amp;", "&#x", "{", "[", "\\", "\u0301", "\ufffd", "\U0001f600", "\u200d\U0001f469",
    "字", "ก", "ا", "é", "the ", "lorem ipsum ", "copyright (c) ", "import os\n", "int a;\n", "• ", "Ã©",
)  # fmt: skip
TEXTS = [(piece * CHARACTERS)[:CHARACTERS] for piece in PIECES]
TEXTS += [
    "".join(chr(33 + (i * i) % 90) for i in range(CHARACTERS)),
    "a" * CHARACTERS + "!",
    "x" + " " * CHARACTERS + "x",
]

CONFIGURED: dict[str, dict[str, Any]] = {  # those that need a value
    "remove_lines": {"lists": ["code", "html_spans"]},
    "remove_substrings": {"substrings": ["needle"]},
    "license": {"deny": ["*-NC-*"]},
}
ELSEWHERE = {"extract_html", "perplexity", "quality", "removals", "urls", "paths"}  # of pages, models, and labels
OPERATIONS = [name for group in GROUPS.values() for name in group if name not in ELSEWHERE]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", OPERATIONS)
def test_hostile_texts_pass_in_linear_time(name: str) -> None:
    function = made(name, **CONFIGURED.get(name, {})).function()
    for text in TEXTS:
        for language in ("en", "zh"):
            found = function(Draft(text, "a.txt", language=language))
            assert isinstance(found, Draft | Drop)
