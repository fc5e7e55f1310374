"""The data card as one page of HTML, its charts as SVG within. Everything that comes from the corpus is escaped."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from stages.corpus.card import Card, Sample, Table, summary
from stages.corpus.card_charts import anchor, by_source, fates, short, tree_map

TITLE_WIDTH = 600

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 960px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; font-size: 13px; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .5rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; min-width: 9em; overflow-wrap: anywhere; }
.words td, .words th { text-align: left; }
.scroll { overflow-x: auto; }
svg { width: 100%; min-width: 640px; height: auto; font: 12px system-ui, sans-serif; }
svg a { color: inherit; }
svg a:hover text:first-child, svg a:focus text:first-child { text-decoration: underline; }
.key { display: inline-block; width: .8em; height: .8em; margin-left: 1em; }
.warning { border-left: 4px solid #b5651d; padding: .4rem .8rem; background: #b5651d22; }
details { border-bottom: 1px solid var(--line); padding: .35rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); padding: .5rem; font-size: 12px; }
"""


def page(card: Card) -> str:
    """The page. The same card makes the same bytes."""
    total = card.manifest.total
    parts = [
        Markup("<h1>Data card</h1><p>{}</p>").format(summary(total)),
        *(Markup("<p class=warning>{}</p>").format(warning) for warning in card.warnings),
        Markup("<h2>What it holds</h2>"),
        tree_map(card.manifest),
        Markup("<h2>What became of what was read</h2>"),
        fates(card.manifest, card.samples.keys()),
        Markup("<h3>By source</h3>"),
        by_source(card.manifest),
        Markup("<h3>Samples of what was dropped</h3>"),
        *(_fold(f"{reason} ({len(samples)})", samples, anchor(reason)) for reason, samples in card.samples.items()),
        *(_table(table) for table in card.tables),
        *_families(card),
    ]
    head = Markup("<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>")
    style = Markup("<title>Data card</title><style>{}</style>").format(Markup(STYLE))
    return str(head + style + Markup("\n").join(parts) + Markup("\n</html>\n"))


def _families(card: Card) -> list[Markup]:
    if not card.families:
        return []
    more = f", the first {len(card.families)} of them here" if card.more_families else ""
    count = len(card.families) + card.more_families
    head = Markup("<h2>Documents that are alike</h2><p>{:,} families{}.</p>").format(count, more)
    return [head, *(_fold(_family_title(members), members) for members in card.families)]


def _family_title(members: Sequence[Sample]) -> str:
    """How they begin, and how many there are."""
    begins = " ".join(members[0].text.split())
    return f"{short(begins, TITLE_WIDTH)} and {len(members) - 1} more"


def _fold(title: str, samples: Sequence[Sample], name: str = "") -> Markup:
    """Samples that a click opens. A link to `name` opens them too: browsers show what is linked to."""
    texts = Markup("").join(
        Markup("<p>{}</p><pre dir=auto>{}</pre>").format(sample.label, sample.text) for sample in samples
    )
    inside = Markup('<div id="{}">{}</div>').format(name, texts) if name else texts
    return Markup("<details><summary>{}</summary>{}</details>").format(title, inside)


def _table(table: Table) -> Markup:
    head = Markup("").join(Markup("<th>{}</th>").format(name) for name in table.columns)
    rows = Markup("\n").join(
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row))
        for row in table.rows
    )
    words = Markup(" class=words") if table.title == "Operations" else Markup("")
    return Markup("<h2>{}</h2><div class=scroll><table{}><tr>{}</tr>\n{}</table></div>").format(
        table.title, words, head, rows
    )
