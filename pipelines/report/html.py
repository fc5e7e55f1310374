"""The frame of a page of a report, and the small pieces that the pages have in common. All text is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from markupsafe import Markup

from stages.base import PAGE_POLICY

WORDS = {
    "done": "done",
    "cached": "cached",
    "failed": "failed",
    "skipped": "skipped",
    "stopped": "stopped",
    "killed": "stopped without an end",
    "running": "running",
    "waiting": "waiting",
    "unselected": "not selected",
}


def document(title: str, body: Markup, contents: Markup | str = "") -> str:
    """A self-contained page: no request leaves it, and no script runs in it. `contents`: links to its sections."""
    style = files("pipelines.report").joinpath("page.css").read_text()
    return str(
        Markup(
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            '<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<link rel="icon" href="data:,">\n'
            "<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n{contents}\n<main>\n{body}\n</main>\n</body>\n</html>\n"
        ).format(policy=Markup(PAGE_POLICY), title=title, style=Markup(style), contents=contents, body=body)
    )


def write_page(content: str, path: Path) -> Path:
    """Write a page to `path` atomically. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(content, encoding="utf-8", errors="replace")  # a path may not be UTF-8
    temporary.replace(path)
    return path


def section(identifier: str, title: str, body: Markup) -> Markup:
    return Markup('<section id="{0}" aria-labelledby="{0}-head">\n<h2 id="{0}-head">{1}</h2>\n{2}\n</section>').format(
        identifier, title, body
    )


def badge(state: str) -> Markup:
    return Markup('<span class="badge {}">{}</span>').format(state, WORDS.get(state, state))


def facts(values: Mapping[str, object]) -> Markup:
    rows = Markup("").join(
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(name, what) for name, what in values.items()
    )
    return Markup('<dl class="facts">{}</dl>').format(rows)


def folded(title: str, text: str) -> Markup:
    return Markup("<details><summary>{}</summary><pre>{}</pre></details>").format(title, text)
