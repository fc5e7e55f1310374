"""A page for people with one table: self-contained, without scripts, and under the policy of all pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from stages.base import PAGE_POLICY

_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:.25em .8em;text-align:left;border-bottom:1px solid #ddd}"
    "small{color:#666}"
)


def table_page(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The page as HTML. The title and the columns are texts; each cell is HTML, whose texts are escaped already."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{PAGE_POLICY}"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n"
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></body></html>\n"
    )


def scored(answers: Iterable[tuple[str, float]]) -> str:
    """A cell with answers and their scores."""
    return ", ".join(f"{escape(answer)} <small>{score:.3f}</small>" for answer, score in answers)
