"""Every page of HTML that the project writes: no script runs in it, and no request leaves it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipelines.report.page import render
from stages.base import PAGE_POLICY
from stages.entity_alignment import alignment_report, evaluate
from stages.word_alignment.lexicon_report import Mistake
from stages.word_alignment.pages import mistakes_page, neighbours_page
from tests.pipelines import samples
from tests.stages.corpus.examples import ingest, source, write_lines

REPOSITORY = Path(__file__).parents[2]
EVIL = "<script>alert(1)</script><img src=https://evil.example onerror=alert(1)>\"'><base href=//evil.example>"
# The modules that write a page. One that is added needs its page below.
WRITERS = {"pipelines/report/html.py", "stages/corpus/card/html_page.py", "stages/table_page.py"}
# It has one script, which the policy in its header names by digest: tests/pipelines/live has the tests.
LIVE_PAGE = "pipelines/live/server.py"


class Page(HTMLParser):
    """The tags of a page, in order, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def report(folder: Path) -> str:
    return render(samples.run(folder, notes=(EVIL,)))


def card(folder: Path) -> str:
    rows = [{"text": f"{EVIL} number {number}", "license": EVIL, "path": EVIL} for number in range(20)]
    corpus, _ = ingest(folder, sources={"evil": source(write_lines(folder / "evil.jsonl", rows))})
    return (corpus.path / "pages" / "card.html").read_text()


def neighbours(_: Path) -> str:
    return neighbours_page(EVIL, [(EVIL, [(EVIL, 0.5)])])


def mistakes(_: Path) -> str:
    return mistakes_page(EVIL, [Mistake(word=EVIL, answers=((EVIL, 0.5),), expected=(EVIL,))])


def unaligned(_: Path) -> str:
    mistake = alignment_report.Mistake(entity=EVIL, answers=((EVIL, 0.5),), expected=EVIL, rank=2)
    return evaluate.mistakes_page(EVIL, [mistake])


def test_the_pages_below_are_those_of_all_modules_that_write_one() -> None:
    files = [file for folder in ("pipelines", "cluster", "stages") for file in (REPOSITORY / folder).rglob("*.py")]
    writers = {file for file in files if re.search(r"<!doctype html", file.read_text(), re.IGNORECASE)}
    assert {str(file.relative_to(REPOSITORY)) for file in writers} == WRITERS | {LIVE_PAGE}


@pytest.mark.parametrize("write", [report, card, neighbours, mistakes, unaligned])
def test_a_page_has_the_policy_before_any_content_and_no_script_or_reference(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    page = Page(write(tmp_path))
    policy: tuple[str, dict[str, str | None]] = (
        "meta",
        {"http-equiv": "Content-Security-Policy", "content": PAGE_POLICY},
    )
    before = [tag for tag, _ in page.found[: page.found.index(policy)]]
    assert set(before) <= {"html", "head", "meta"}
    for tag, attributes in page.found:
        assert tag not in ("script", "base", "object", "embed", "form")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "action", "data", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
