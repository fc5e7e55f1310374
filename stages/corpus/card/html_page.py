"""The data card as one self-contained HTML page with SVG charts. Everything that comes from the corpus is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from stages.base import PAGE_POLICY
from stages.corpus.card.charts import by_source, legend, lengths, outcome_bars, tree_map
from stages.corpus.card.contents import Card, Family, Sample, Table, summary
from stages.corpus.card.formatting import shortened

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
svg { vertical-align: top; }
.bar { padding-left: 1.2em; }
.scroll details { border: 0; padding: 0; }
.scroll summary { display: flex; align-items: center; }
.scroll summary::before { content: "▸"; flex: none; width: 1.2em; }
.scroll details[open] > summary::before { content: "▾"; }
.key { display: inline-block; width: .8em; height: .8em; margin-left: 1em; }
.warning { border-left: 4px solid #b5651d; padding: .4rem .8rem; background: #b5651d22; }
details { border-bottom: 1px solid var(--line); padding: .35rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); padding: .5rem; font-size: 12px; }
"""


def html_page(card: Card) -> str:
    """The page. The same card gives the same bytes."""
    parts = [
        Markup("<h1>Data card</h1><p>{}</p>").format(summary(card.manifest)),
        *(Markup("<p class=warning>{}</p>").format(warning) for warning in card.warnings),
        Markup("<h2>Contents</h2><p>Bytes kept, by language and source.</p>"),
        _scroll(tree_map(card.manifest)),
        Markup("<h2>Kept and dropped</h2><p>Click a bar to see samples of the documents that the rule dropped.</p>"),
        legend(),
        _scroll(*_outcomes(card)),
        Markup("<h3>By source</h3>"),
        _scroll(by_source(card.manifest)),
        Markup("<h2>Document lengths</h2><p>Documents kept, by the bytes of their text.</p>"),
        _scroll(lengths(card.manifest)),
        *_kept(card),
        *(_table(table) for table in card.tables),
        *_families(card),
    ]
    head = Markup(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f'<meta http-equiv=Content-Security-Policy content="{PAGE_POLICY}">'
    )
    style = Markup("<title>Data card</title><style>{}</style>").format(Markup(STYLE))
    return str(head + style + Markup("\n").join(parts) + Markup("\n</html>\n"))


def _scroll(*parts: Markup) -> Markup:
    return Markup("<div class=scroll>{}</div>").format(Markup("\n").join(parts))


def _outcomes(card: Card) -> Iterator[Markup]:
    """The bars, each with the samples of the documents that its rule dropped."""
    for name, bar in outcome_bars(card.manifest):
        samples = card.samples.get(name)
        yield _fold(bar, samples) if samples else Markup("<div class=bar>{}</div>").format(bar)


def _families(card: Card) -> list[Markup]:
    if not card.families:
        return []
    more = f", of which {len(card.families)} are shown" if len(card.families) < card.family_count else ""
    head = Markup("<h2>Similar documents</h2><p>{:,} families{}.</p>").format(card.family_count, more)
    return [head, *(_fold(_family_title(family), family.members) for family in card.families)]


def _family_title(family: Family) -> str:
    """The beginning of the first text, and the number of other members."""
    begins = " ".join(family.members[0].text.split())
    return f"{shortened(begins, TITLE_WIDTH)} and {family.size - 1:,} more"


def _kept(card: Card) -> list[Markup]:
    """Samples of what was kept, by source."""
    head = Markup("<h2>Samples of what was kept</h2>")
    return [head, *(_fold(source, samples) for source, samples in card.kept.items())] if card.kept else []


def _fold(title: str, samples: Sequence[Sample]) -> Markup:
    texts = Markup("").join(
        Markup("<p>{}</p><pre dir=auto>{}</pre>").format(sample.label, sample.text) for sample in samples
    )
    return Markup("<details><summary>{}</summary>{}</details>").format(title, texts)


def _table(table: Table) -> Markup:
    head = Markup("").join(Markup("<th>{}</th>").format(name) for name in table.columns)
    rows = Markup("\n").join(
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row))
        for row in table.rows
    )
    words = Markup(" class=words") if table.words else Markup("")
    return Markup("<h2>{}</h2><div class=scroll><table{}><tr>{}</tr>\n{}</table></div>").format(
        table.title, words, head, rows
    )
