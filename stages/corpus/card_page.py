"""The data card as one page of HTML, its charts as SVG within. Everything that comes from the corpus is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from markupsafe import Markup

from stages.artifacts.manifest import Manifest, Tally
from stages.corpus.card import Card, Sample, Table, language_name, size, summary
from stages.corpus.tree_map import COLORS, Tile, tiles

WIDTH = 920  # of a chart
TITLE_WIDTH = 600
LABEL_WIDTH, LABEL_HEIGHT = 60, 24  # of a rectangle that is large enough for a name

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 960px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; font-size: 13px; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .5rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
.words td, .words th { text-align: left; }
.scroll { overflow-x: auto; }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; }
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
        _tree_map(card.manifest),
        Markup("<h2>What became of what was read</h2>"),
        _bars(_fates(card.manifest)),
        Markup("<h3>Samples of what was dropped</h3>"),
        *(_fold(f"{reason} ({len(samples)})", samples) for reason, samples in card.samples.items()),
        *(_table(table) for table in card.tables),
        *_families(card),
    ]
    head = Markup("<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>")
    style = Markup("<title>Data card</title><style>{}</style>").format(Markup(STYLE))
    return str(head + style + Markup("\n").join(parts) + Markup("\n</html>\n"))


def _tree_map(manifest: Manifest) -> Markup:
    height = 360
    shapes = [shape for tile in tiles(manifest, WIDTH, height) for shape in _tile(tile)]
    return _svg(height, shapes, "Bytes kept, by language and source")


def _tile(tile: Tile) -> Iterator[Markup]:
    told = f"{language_name(tile.language)}, {tile.source}: {size(tile.bytes)}"
    yield Markup(
        "<rect x={:.1f} y={:.1f} width={:.1f} height={:.1f} fill='{}' stroke=white><title>{}</title></rect>"
    ).format(tile.x, tile.y, tile.width, tile.height, tile.color, told)
    if tile.width > LABEL_WIDTH and tile.height > LABEL_HEIGHT:
        text = _short(f"{tile.language or '(none)'} · {tile.source}", tile.width)
        yield Markup("<text x={:.1f} y={:.1f} fill=white>{}</text>").format(tile.x + 6, tile.y + 16, text)
        amount = size(tile.bytes)
        if tile.height > 2 * LABEL_HEIGHT and _short(amount, tile.width) == amount:
            yield Markup("<text x={:.1f} y={:.1f} fill=white opacity=.8>{}</text>").format(
                tile.x + 6, tile.y + 32, amount
            )


def _fates(manifest: Manifest) -> list[tuple[str, int, str, str]]:
    """Name, bytes, what is told of it, and colour of what was kept and of what each rule took."""
    total = manifest.total
    taken: list[tuple[str, int, str]] = [
        (reason, tally.bytes, _told(tally)) for reason, tally in total.dropped.items()
    ] + [(f"{name} (out of texts)", count, size(count)) for name, count in total.trimmed.items() if count > 0]
    taken.sort(key=lambda item: (-item[1], item[0]))
    return [("kept", total.kept.bytes, _told(total.kept), COLORS[0]), *((*each, "#a0522d") for each in taken)]


def _told(tally: Tally) -> str:
    return f"{size(tally.bytes)} in {tally.documents:,} documents"


def _bars(rows: Sequence[tuple[str, int, str, str]]) -> Markup:
    longest = max((count for _, count, _, _ in rows), default=0) or 1
    names, room, height = 260, WIDTH - 260 - 190, 24
    shapes = []
    for place, (name, count, told, color) in enumerate(rows):
        y, width = place * height, max(room * count / longest, 1)
        shapes.append(
            Markup(
                "<text x={} y={} text-anchor=end fill=currentColor>{}</text>"
                "<rect x={} y={} width={:.1f} height=16 fill='{}'></rect>"
                "<text x={:.1f} y={} fill=currentColor>{}</text>"
            ).format(
                names - 8, y + 16, _short(name, names), names, y + 4, width, color, names + width + 6, y + 16, told
            )
        )
    return _svg(len(rows) * height + 4, shapes, "Bytes kept, and dropped or taken out by each rule")


def _svg(height: float, shapes: Iterable[Markup], label: str) -> Markup:
    return Markup('<svg role=img aria-label="{}" viewBox="0 0 {} {}">{}</svg>').format(
        label, WIDTH, height, Markup("").join(shapes)
    )


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
    return f"{_short(begins, TITLE_WIDTH)} and {len(members) - 1} more"


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
    words = Markup(" class=words") if table.title == "Operations" else Markup("")
    return Markup("<h2>{}</h2><div class=scroll><table{}><tr>{}</tr>\n{}</table></div>").format(
        table.title, words, head, rows
    )


def _short(text: str, width: float) -> str:
    """As much of a text as has room in so many pixels."""
    room = max(int(width / 7) - 1, 1)
    return text if len(text) <= room else text[: room - 1] + "…"
