"""Pages for people: what the alignment answers, and what it gets wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from stages.base import PAGE_POLICY
from stages.word_alignment.lexicon_report import Mistake

_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:.25em .8em;text-align:left;border-bottom:1px solid #ddd}"
    "small{color:#666}"
)


def neighbours_page(title: str, rows: Iterable[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    """A table of words with their nearest words in the other language."""
    return _page(title, ("word", "nearest words (CSLS)"), ((escape(word), _scored(answers)) for word, answers in rows))


def mistakes_page(title: str, mistakes: Iterable[Mistake]) -> str:
    """A table of mistakes with what was expected."""
    rows = ((escape(one.word), _scored(one.answers), escape(", ".join(one.expected))) for one in mistakes)
    return _page(title, ("word", "answers (CSLS)", "expected"), rows)


def _scored(answers: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{escape(word)} <small>{score:.3f}</small>" for word, score in answers)


def _page(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{PAGE_POLICY}"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n"
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></body></html>\n"
    )
