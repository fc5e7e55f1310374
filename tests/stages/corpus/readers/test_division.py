"""Long texts are divided into documents, and nothing of them is lost."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.readers.division import LONGEST, Divide, divided


def parts(text: bytes, divide: Divide, size: int = 100, pattern: str = "", longest: int = 10_000) -> list[bytes]:
    found = list(divided(io.BytesIO(text), divide, size, pattern, longest))
    position = 0
    for start, document in found:
        assert start == position
        position += len(document)
    assert b"".join(document for _, document in found) == text
    return [document for _, document in found]


PARAGRAPH = b"A line of sixty bytes with its end, as books have them here.\n"


def test_documents_end_at_the_first_blank_line_after_the_size() -> None:
    text = (PARAGRAPH * 3 + b"\n") * 4
    assert parts(text, "blank_lines", 100) == [PARAGRAPH * 3 + b"\n"] * 4
    assert parts(text, "blank_lines", 200) == [(PARAGRAPH * 3 + b"\n") * 2] * 2
    assert parts(b"short\n\ntext\n", "blank_lines") == [b"short\n\ntext\n"]


def test_a_passage_without_blank_lines_is_divided_at_a_line_all_the_same() -> None:
    found = parts(PARAGRAPH * 40, "blank_lines", 100)
    assert len(found) > 1
    assert all(document.endswith(b"here.\n") and len(document) <= LONGEST * 100 + 50 for document in found)


def test_a_remainder_is_part_of_the_last_document() -> None:
    assert parts(PARAGRAPH * 4 + b"tail\n", "bytes", 125)[-1] == PARAGRAPH * 2 + b"tail\n"


def test_a_document_begins_with_each_line_of_a_pattern() -> None:
    text = b"Preface\n\nCHAPTER I\n\none\nCHAPTER II\ntwo\n" + "ÉTAPE 3\ndrei\n".encode()
    chapters = [b"Preface\n\n", b"CHAPTER I\n\none\n", b"CHAPTER II\ntwo\n", "ÉTAPE 3\ndrei\n".encode()]
    assert parts(text, "regex", pattern=r"^(CHAPTER|É\w+ \d)") == chapters


def test_a_line_without_end_is_divided_between_words_or_characters() -> None:
    assert all(document.endswith(b"word ") for document in parts(b"word " * 200, "bytes", 100))
    for document in parts("漢字".encode() * 200, "bytes", 100):
        assert document.decode()


def test_a_whole_text_is_one_document() -> None:
    text = (PARAGRAPH + b"\n") * 20
    assert parts(text, "no") == [text]


@given(
    st.text(st.sampled_from("ab é漢\n\r\t"), max_size=600).map(str.encode),
    st.sampled_from(["blank_lines", "bytes", "regex", "no"]),
    st.integers(8, 200),
)
def test_nothing_is_lost_and_no_character_is_divided(text: bytes, divide: Divide, size: int) -> None:
    for document in parts(text, divide, size, "^a", 300):
        document.decode()
        assert len(document) <= 300 + size


@pytest.mark.parametrize("divide", ["blank_lines", "bytes", "regex", "no"])
def test_an_empty_text_is_an_empty_document(divide: Divide) -> None:
    assert parts(b"", divide) == [b""]
