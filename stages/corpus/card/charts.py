"""The charts of the data card as SVG: a tree map of the kept bytes, and bars of the bytes kept, removed and dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from markupsafe import Markup

from stages.artifacts.manifest import Manifest, Tally
from stages.corpus.card.formatting import language_name, shortened, size
from stages.corpus.card.tree_map import Tile, tiles

WIDTH = 920  # of a chart
NAMES = 260  # of the names before the bars
LONGEST = WIDTH - NAMES - 220  # of the longest bar
ROW = 24
LABEL_WIDTH, LABEL_HEIGHT = 60, 24  # of the smallest rectangle that has a name
KEPT, TRIMMED, DROPPED = "#2f6f4f", "#b8963e", "#a0522d"
OUTCOMES = {"kept": KEPT, "removed from texts": TRIMMED, "dropped": DROPPED}


def tree_map(manifest: Manifest) -> Markup:
    """The bytes kept, by language and source."""
    height = 360
    shapes = [shape for tile in tiles(manifest, WIDTH, height) for shape in _tile(tile)]
    return _svg(height, shapes, "Bytes kept, by language and source")


def _tile(tile: Tile) -> Iterator[Markup]:
    tooltip = f"{language_name(tile.language)}, {tile.source}: {size(tile.bytes)}"
    yield Markup(
        "<rect x={:.1f} y={:.1f} width={:.1f} height={:.1f} fill='{}' stroke=white><title>{}</title></rect>"
    ).format(tile.x, tile.y, tile.width, tile.height, tile.color, tooltip)
    if tile.width > LABEL_WIDTH and tile.height > LABEL_HEIGHT:
        text = shortened(f"{tile.language or '(none)'} · {tile.source}", tile.width)
        yield Markup("<text x={:.1f} y={:.1f} fill=white>{}</text>").format(tile.x + 6, tile.y + 16, text)
        amount = size(tile.bytes)
        if tile.height > 2 * LABEL_HEIGHT and shortened(amount, tile.width) == amount:
            yield Markup("<text x={:.1f} y={:.1f} fill=white opacity=.8>{}</text>").format(
                tile.x + 6, tile.y + 32, amount
            )


def outcome_bars(manifest: Manifest) -> Iterator[tuple[str, Markup]]:
    """A name and a bar for what was kept, and then for what each rule dropped or removed, the largest first."""
    total = manifest.total
    taken = [(reason, tally.bytes, _amount(tally), DROPPED) for reason, tally in total.dropped.items()]
    markup = {name for facts in manifest.sources.values() for name in facts.markup}
    taken += [
        (f"{name} ({'markup' if name in markup else 'removed from texts'})", count, size(count), TRIMMED)
        for name, count in total.trimmed.items()
        if count > 0
    ]
    taken.sort(key=lambda item: (-item[1], item[0]))
    rows = [("kept", total.kept.bytes, _amount(total.kept), KEPT), *taken]
    longest = max((count for _, count, _, _ in rows), default=0) or 1
    for name, count, amount, color in rows:
        width = max(LONGEST * count / longest, 1)
        shapes = [
            _text(NAMES - 8, 16, shortened(name, NAMES), "end"),
            _rectangle(NAMES, 4, width, 16, color, f"{name}: {amount}"),
            _text(NAMES + width + 6, 16, amount),
        ]
        yield name, _svg(ROW, shapes, f"{name}: {amount}")


def by_source(manifest: Manifest) -> Markup:
    """For each source, the bytes kept, removed from texts and dropped, as shares of the text that was read."""
    flows = sorted(manifest.by("source").items(), key=lambda item: (-item[1].read.bytes, item[0]))
    shapes = []
    for place, (name, flow) in enumerate(flows):
        y = place * ROW
        facts = manifest.sources[name]
        text = flow.read.bytes - manifest.markup_bytes(name)
        read = max(text, 1)
        trimmed = max(sum(count for by, count in flow.trimmed.items() if by not in facts.markup), 0)
        dropped = sum(tally.bytes for by, tally in flow.dropped.items() if not facts.precedes_text(by))
        shapes.append(_text(NAMES - 8, y + 16, shortened(name, NAMES), "end"))
        x = float(NAMES)
        parts = (
            ("kept", flow.kept.bytes, KEPT),
            ("removed from texts", trimmed, TRIMMED),
            ("dropped", dropped, DROPPED),
        )
        scale = LONGEST / max(flow.kept.bytes + trimmed + dropped, 1)  # operations may also add bytes
        for what, count, color in parts:
            tooltip = f"{name}: {size(count)} {what}, {count / read:.1%} of the text read"
            shapes.append(_rectangle(x, y + 4, count * scale, 16, color, tooltip))
            x += count * scale
        share = f"{flow.kept.bytes / read:.0%} kept of {size(text)}"
        shapes.append(_text(NAMES + LONGEST + 6, y + 16, share))
    return _svg(len(flows) * ROW + 4, shapes, "Bytes kept, removed and dropped, by source")


def legend() -> Markup:
    """The colours of the bars."""
    keys = Markup(" ").join(
        Markup('<span class=key style="background:{}"></span> {}').format(color, what)
        for what, color in OUTCOMES.items()
    )
    return Markup("<p>{}</p>").format(keys)


def lengths(manifest: Manifest) -> Markup:
    """The number of documents by length. A column covers the lengths from a power of two to the next one."""
    found = manifest.lengths
    bits = range(min(found, default=1), max(found, default=0) + 1)  # also the lengths in between without documents
    most = max((tally.documents for tally in found.values()), default=1)
    width, high = WIDTH / max(len(bits), 1), 140
    shapes = []
    for place, each in enumerate(bits):
        tally = found.get(each, Tally())
        height = high * tally.documents / most
        x, begins = place * width, _power_of_two(each - 1) if each else "0 B"
        tooltip = f"{tally.documents:,} documents of {begins} or more"
        shapes.append(_rectangle(x + 1, 18 + high - height, width - 2, height, KEPT, tooltip))
        shapes.append(_text(x + width / 2, 13 + high - height, shortened(f"{tally.documents:,}", width + 7), "middle"))
        shapes.append(_text(x + width / 2, high + 34, shortened(begins, width + 7), "middle"))
    return _svg(high + 42, shapes, "Documents by length; each column starts at the length written below it")


def _power_of_two(exponent: int) -> str:
    """2^exponent bytes: "4 KiB"."""
    return f"{2 ** (exponent % 10)} {('B', 'KiB', 'MiB', 'GiB')[exponent // 10]}"


def _amount(tally: Tally) -> str:
    return f"{size(tally.bytes)} in {tally.documents:,} document{'s' if tally.documents != 1 else ''}"


def _text(x: float, y: float, text: str, side: str = "start") -> Markup:
    return Markup("<text x={:.1f} y={:.0f} text-anchor={} fill=currentColor>{}</text>").format(x, y, side, text)


def _rectangle(x: float, y: float, width: float, height: float, color: str, tooltip: str) -> Markup:
    return Markup("<rect x={:.1f} y={:.1f} width={:.1f} height={:.1f} fill='{}'><title>{}</title></rect>").format(
        x, y, width, height, color, tooltip
    )


def _svg(height: float, shapes: Iterable[Markup], label: str) -> Markup:
    return Markup('<svg role=img aria-label="{}" viewBox="0 0 {} {}">{}</svg>').format(
        label, WIDTH, height, Markup("").join(shapes)
    )
