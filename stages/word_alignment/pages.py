"""Pages for people: what the alignment answers, and what it gets wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from stages.table_page import scored, table_page
from stages.word_alignment.lexicon_report import Mistake


def neighbours_page(title: str, rows: Iterable[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    """A table of words with their nearest words in the other language."""
    cells = ((escape(word), scored(answers)) for word, answers in rows)
    return table_page(title, ("word", "nearest words (CSLS)"), cells)


def mistakes_page(title: str, mistakes: Iterable[Mistake]) -> str:
    """A table of mistakes with what was expected."""
    rows = ((escape(one.word), scored(one.answers), escape(", ".join(one.expected))) for one in mistakes)
    return table_page(title, ("word", "answers (CSLS)", "expected"), rows)
