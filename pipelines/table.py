"""A table of text without borders, for one row or for thousands.

Widths are measured once; only what is too wide for its column is cut or folded. (Rich's own table lays every cell out
by itself: a third of a second for a plan of a thousand steps.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from cluster.terminal_text import clean_line

if TYPE_CHECKING:
    from rich.console import Console

GAP = 2
LEAST = 8  # columns of the terminal that a flexible column has at least, unless it states another number


@dataclass(frozen=True)
class Column:
    """How one column is laid out. Widths are in columns of the terminal."""

    title: str
    most: int | None = None  # its width at most
    flexible: bool = False  # becomes narrower if the terminal is too narrow, the widest of them first
    least: int = LEAST  # its width at least, if it is flexible
    fold: bool = False  # text that is too long continues on the next line; otherwise it is cut
    right: bool = False
    optional: bool = False  # left out if it is empty, or if the table would be too wide with it


@dataclass(frozen=True)
class Cell:
    """A text, which is drawn without control characters, and its style."""

    text: str
    style: str = ""
    lines: int | None = None  # at most, where its column folds it; the last one ends with "…" if there is more


def draw(out: Console, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> list[str]:
    """Print a table with a line of titles. Returns the titles of the columns that have something and did not fit."""
    from rich.segment import Segment, Segments
    from rich.style import Style

    rows = [[Cell(clean_line(cell.text), cell.style, cell.lines) for cell in row] for row in rows]
    fits = sum(_natural(columns, rows)) + GAP * (len(columns) - 1) <= out.width
    filled = [any(row[index].text for row in rows) for index in range(len(columns))]
    left_out = [column.title for index, column in enumerate(columns) if column.optional and filled[index] and not fits]
    if any(column.optional for column in columns):
        kept = [index for index, column in enumerate(columns) if not column.optional or (fits and filled[index])]
        columns, rows = [columns[index] for index in kept], [[row[index] for index in kept] for row in rows]
    titles = [Cell(column.title, "bold") for column in columns]
    widths = _widths(columns, rows, out.width)
    styles = {cell.style: Style.parse(cell.style) for row in [titles, *rows] for cell in row}
    segments = []
    for row in [titles, *rows]:
        folded = [_lines(cell, column, width) for cell, column, width in zip(row, columns, widths, strict=True)]
        for line in zip_longest(*folded, fillvalue=""):
            last = max((index for index, text in enumerate(line) if text.strip()), default=0)
            for index, text in enumerate(line[: last + 1]):
                padded = _padded(text, widths[index], columns[index].right)
                segments.append(Segment(padded.rstrip() if index == last else padded, styles[row[index].style]))
                segments.append(Segment("\n" if index == last else " " * GAP))
    out.print(Segments(segments), end="")
    return left_out


def _natural(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> list[int]:
    """The width of each column without a limit of the terminal."""
    from rich.cells import cell_len

    widest = (
        max([cell_len(column.title), *(cell_len(row[index].text) for row in rows)])
        for index, column in enumerate(columns)
    )
    return [min(width, column.most or width) for width, column in zip(widest, columns, strict=True)]


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], available: int) -> list[int]:
    """The width of each column on a terminal `available` wide."""
    widths = [
        min(width, column.most or available) for width, column in zip(_natural(columns, rows), columns, strict=True)
    ]
    excess = sum(widths) + GAP * (len(columns) - 1) - available
    least = [
        min(width, max(column.least, len(column.title))) if column.flexible else width
        for width, column in zip(widths, columns, strict=True)
    ]
    while excess > 0 and (narrower := [index for index in range(len(columns)) if widths[index] > least[index]]):
        widest = max(narrower, key=widths.__getitem__)
        widths[widest] -= 1
        excess -= 1
    return widths


def _lines(cell: Cell, column: Column, width: int) -> list[str]:
    from rich.cells import cell_len

    if cell_len(cell.text) <= width:
        return [cell.text]
    if not column.fold:
        return [_cut(cell.text, width)]
    lines = _folded(cell.text, width)
    if cell.lines is None or len(lines) <= cell.lines:
        return lines
    rest = cell.text if cell.lines == 1 else " ".join(lines[cell.lines - 1 :])
    return [*lines[: cell.lines - 1], _cut(rest, width)]


def _cut(text: str, width: int) -> str:
    from rich.cells import set_cell_size

    return set_cell_size(text, width - 1).rstrip() + "…"


def _folded(text: str, width: int) -> list[str]:
    """Lines no wider than `width`, broken between words where possible."""
    from rich.cells import cell_len, chop_cells

    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(joined) <= width:
            lines[-1] = joined
            continue
        pieces = chop_cells(word, width)
        lines = [*lines, *pieces] if lines[-1] else [*lines[:-1], *pieces]
    return lines


def _padded(text: str, width: int, right: bool) -> str:
    from rich.cells import cell_len

    space = " " * (width - cell_len(text))
    return space + text if right else text + space
