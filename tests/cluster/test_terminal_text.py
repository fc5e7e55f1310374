"""Foreign texts on their way to a terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.terminal_text import clean, clean_line, indented, say

CONTROLS = [*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xD800, 0xDFFF]


@pytest.mark.parametrize("sign", [*map(chr, CONTROLS)])
def test_every_control_character_is_replaced(sign: str) -> None:
    assert clean(f"a{sign}b") == clean_line(f"a{sign}b") == "a�b"


@given(st.text() | st.text("\ud800\udce9\udfffa\n\u2028\u202e\x1b"))
def test_no_text_controls_the_terminal_or_can_not_be_written_to_it(text: str) -> None:
    for shown in (clean(text), clean_line(text), indented(text)):
        shown.encode()
        assert not {ord(sign) for sign in shown} & set(CONTROLS)
    assert len(clean_line(text).splitlines()) <= 1
    assert all(line.startswith("  ") for line in indented(text).split("\n") if line)


def test_ordinary_text_stays_as_it_is() -> None:
    text = "é ß 漢字 العربية \U0001f600 \ta\nb"
    assert clean(text) == text
    assert clean("a\r\nb") == "a\nb"
    assert clean_line("a\nb\tc") == "a b c"
    out = io.StringIO()
    say("a\x1bb", file=out)
    assert out.getvalue() == "a�b\n"
