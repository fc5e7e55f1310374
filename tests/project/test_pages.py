"""Pages link to files that exist, and the README leads to every page."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.project.prose import files
from tests.project.support import ROOT

PAGES = [path for path in files() if path.suffix == ".md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("folder", ["docs", "examples"])
def test_the_readme_links_to_every_page(folder: str) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    pages = [page for page in PAGES if page.is_relative_to(ROOT / folder) and page.name != "index.md"]
    assert pages
    assert [str(page.relative_to(ROOT)) for page in pages if f"({page.relative_to(ROOT)})" not in readme] == []


def test_the_readme_names_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    readme = (ROOT / "README.md").read_text("utf-8")
    for extra in set(extras) - {"dev", "datasketch"}:
        assert f"`{extra}`" in readme or f"[{extra}]" in readme, extra
