"""The data card as Markdown, without texts of documents."""

from __future__ import annotations

from stages.corpus.card.contents import Card, summary


def markdown_page(card: Card) -> str:
    """The page. The same card gives the same bytes."""
    parts = ["# Data card", summary(card.manifest)]
    parts += [f"**Warning:** {_cell(warning)}" for warning in card.warnings]
    for table in card.tables:
        aligned = "---" if table.words else "---:"
        rows = [table.columns, ("---", *[aligned] * (len(table.columns) - 1)), *table.rows]
        lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
        parts.append(f"## {table.title}\n\n" + "\n".join(lines))
    if card.families:
        parts.append(f"card.html shows {len(card.families)} of {card.family_count} families of similar documents.")
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    """Escape a text for a table cell: names of sources and licences come from content and are not trusted."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
    return " ".join(escaped.split())
