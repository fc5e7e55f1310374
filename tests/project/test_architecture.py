"""docs/architecture.md describes the current tree."""

from __future__ import annotations

from tests.project.module_list import PAGE, modules, page, summary


def test_the_list_of_modules_fits_the_tree() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `make module-list`"


def test_every_module_says_what_it_is() -> None:
    assert [str(path) for path in modules() if not summary(path)] == []
