"""The table: it keeps to every width, and folded cells lose no text."""

from __future__ import annotations

import io
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from pipelines import terminal
from pipelines.table import Cell, Column, draw

COLUMNS = [Column("Step", most=10), Column("Time", right=True), Column("Why", flexible=True, fold=True)]


def drawn(rows: Sequence[tuple[str, ...]], width: int, columns: list[Column] = COLUMNS) -> list[str]:
    file = io.StringIO()
    draw(terminal.console(file, width), columns, [[Cell(text) for text in row] for row in rows])
    return file.getvalue().splitlines()


def test_columns_stand_below_their_titles() -> None:
    assert drawn([("a", "1 s", "first"), ("bcd", "10 s", "second one")], 40) == [
        "Step  Time  Why",
        "a      1 s  first",
        "bcd   10 s  second one",
    ]


def test_what_is_too_long_is_cut_or_folded() -> None:
    assert drawn([("a" * 12, "1 s", "one two three four")], 30)[1:] == [
        "aaaaaaaaa…   1 s  one two",
        "                  three four",
    ]


def test_the_widest_gives_way_first() -> None:
    columns = [Column("A", flexible=True), Column("B", flexible=True)]
    assert drawn([("a" * 30, "b" * 10)], 30, columns)[1] == "a" * 17 + "…  " + "b" * 10


def test_two_wide_columns_share_the_room_and_keep_their_least_width() -> None:
    columns = [Column("A", flexible=True), Column("B", flexible=True, least=20)]
    rows = [("a" * 500, "b" * 60)]
    assert drawn(rows, 62, columns)[1] == "a" * 29 + "…  " + "b" * 29 + "…"
    assert drawn(rows, 34, columns)[1] == "a" * 11 + "…  " + "b" * 19 + "…"


def test_a_folded_cell_ends_after_the_lines_that_it_may_have() -> None:
    columns = [Column("Why", flexible=True, fold=True)]

    def lines(most: int | None) -> list[str]:
        file = io.StringIO()
        draw(terminal.console(file, 10), columns, [[Cell("one two three four five", lines=most)]])
        return file.getvalue().splitlines()[1:]

    assert lines(None) == ["one two", "three four", "five"]
    assert lines(2) == ["one two", "three fou…"]
    assert lines(1) == ["one two t…"]


def test_the_columns_that_did_not_fit_are_returned() -> None:
    columns = [Column("Step"), Column("Where", optional=True), Column("Empty", optional=True)]
    rows = [[Cell("a"), Cell("x" * 30), Cell("")]]
    assert draw(terminal.console(io.StringIO(), 20), columns, rows) == ["Where"]
    assert draw(terminal.console(io.StringIO(), 80), columns, rows) == []


def test_an_optional_column_is_there_whole_or_not_at_all() -> None:
    columns = [Column("Step"), Column("Why", flexible=True, fold=True), Column("Where", optional=True)]
    rows = [("a", "first", "x" * 20)]
    assert drawn(rows, 34, columns) == ["Step  Why    Where", "a     first  " + "x" * 20] != drawn(rows, 32, columns)
    assert drawn(rows, 32, columns) == ["Step  Why", "a     first"]
    assert drawn([("a", "first", "")], 80, columns) == ["Step  Why", "a     first"]


def test_an_empty_cell_leaves_no_trailing_space() -> None:
    assert drawn([("a", "", "")], 40)[1] == "a"
    assert drawn([], 40) == ["Step  Time  Why"]


words = st.text(st.characters(exclude_categories=["C", "Z", "M"]), min_size=1, max_size=30)


@given(st.lists(st.tuples(words, words, st.lists(words, max_size=5).map(" ".join)), max_size=4), st.integers(80, 200))
def test_no_line_is_wider_than_the_terminal_and_no_word_is_lost(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = drawn(rows, width)
    assert all(cell_len(line) <= width for line in lines)
    whole = "".join("".join(lines).split())
    for _, _, why in rows:
        for word in why.split():
            assert word in whole
