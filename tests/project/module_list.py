"""Writes the list of modules in docs/architecture.md: one line per module, from the first sentence of its docstring.

python -m tests.project.module_list
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from tests.project.support import ROOT

PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules: begin -->\n", "<!-- modules: end -->\n"
PACKAGES = ("pipelines", "cluster", "stages", "hydra_plugins")


def modules() -> list[Path]:
    """Every module of the product, relative to the root, folder by folder."""
    found = [path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(found, key=lambda path: (PACKAGES.index(path.parts[0]), path.parent, path.name))


def summary(path: Path) -> str:
    """The first sentence of a module's docstring; "" if there is none."""
    paragraph = (ast.get_docstring(ast.parse((ROOT / path).read_text("utf-8"))) or "").split("\n\n")[0]
    sentence = re.split(r"(?<=[.!?:])\s+(?=[A-Z`*])", " ".join(paragraph.split()))[0]
    return re.sub(r":$", ".", sentence)


def lines() -> Iterator[str]:
    for folder, members in groupby(modules(), key=lambda path: path.parent):
        paths = list(members)
        package = next((summary(path) for path in paths if path.name == "__init__.py"), "")
        yield from (f"### {folder}/", "", *([package, ""] if package else []))
        listed = [path for path in paths if path.name != "__init__.py"]
        yield from (f"- `{path.name}`: {summary(path)}" for path in listed)
        yield from ("",) if listed else ()


def page() -> str:
    """The page with a list that fits the tree."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{chr(10).join(lines())}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
