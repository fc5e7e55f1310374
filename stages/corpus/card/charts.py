"""The charts of the data card, as SVG: a tree map of what is kept, and bars of what became of what was read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from markupsafe import Markup

from stages.artifacts.manifest import Manifest, Tally
from stages.corpus.card.contents import language_name, size
from stages.corpus.card.tree_map import Tile, tiles

WIDTH = 920  # of a chart
NAMES = 260  # before the bars
ROOM = WIDTH - NAMES - 220  # of the longest bar
ROW = 24
LABEL_WIDTH, LABEL_HEIGHT = 60, 24  # of a rectangle that is large enough for a name
KEPT, TRIMMED, DROPPED = "#2f6f4f", "#b8963e", "#a0522d"
FATES = {"kept": KEPT, "taken out of texts": TRIMMED, "dropped": DROPPED}


def tree_map(manifest: Manifest) -> Markup:
    height = 360
    shapes = [shape for tile in tiles(manifest, WIDTH, height) for shape in _tile(tile)]
    return _svg(height, shapes, "Bytes kept, by language and source")


def _tile(tile: Tile) -> Iterator[Markup]:
    told = f"{language_name(tile.language)}, {tile.source}: {size(tile.bytes)}"
    yield Markup(
        "<rect x={:.1f} y={:.1f} width={:.1f} height={:.1f} fill='{}' stroke=white><title>{}</title></rect>"
    ).format(tile.x, tile.y, tile.width, tile.height, tile.color, told)
    if tile.width > LABEL_WIDTH and tile.height > LABEL_HEIGHT:
        text = short(f"{tile.language or '(none)'} · {tile.source}", tile.width)
        yield Markup("<text x={:.1f} y={:.1f} fill=white>{}</text>").format(tile.x + 6, tile.y + 16, text)
        amount = size(tile.bytes)
        if tile.height > 2 * LABEL_HEIGHT and short(amount, tile.width) == amount:
            yield Markup("<text x={:.1f} y={:.1f} fill=white opacity=.8>{}</text>").format(
                tile.x + 6, tile.y + 32, amount
            )


def fates(manifest: Manifest) -> Iterator[tuple[str, Markup]]:
    """What was kept and what each rule took, the most first: the name, and its bar."""
    total = manifest.total
    taken = [(reason, tally.bytes, _told(tally), DROPPED) for reason, tally in total.dropped.items()]
    taken += [
        (f"{name} (out of texts)", count, size(count), TRIMMED) for name, count in total.trimmed.items() if count > 0
    ]
    taken.sort(key=lambda item: (-item[1], item[0]))
    rows = [("kept", total.kept.bytes, _told(total.kept), KEPT), *taken]
    longest = max((count for _, count, _, _ in rows), default=0) or 1
    for name, count, told, color in rows:
        width = max(ROOM * count / longest, 1)
        shapes = [
            _text(NAMES - 8, 16, short(name, NAMES), "end"),
            _rectangle(NAMES, 4, width, 16, color, f"{name}: {told}"),
            _text(NAMES + width + 6, 16, told),
        ]
        yield name, _svg(ROW, shapes, f"{name}: {told}")


def by_source(manifest: Manifest) -> Markup:
    """Of each source what was kept, taken out of texts and dropped, as shares of what was read."""
    flows = sorted(manifest.by("source").items(), key=lambda item: (-item[1].read.bytes, item[0]))
    shapes = []
    for place, (name, flow) in enumerate(flows):
        y = place * ROW
        read = max(flow.read.bytes, 1)
        trimmed = max(sum(flow.trimmed.values()), 0)
        dropped = sum(tally.bytes for tally in flow.dropped.values())
        shapes.append(_text(NAMES - 8, y + 16, short(name, NAMES), "end"))
        x = float(NAMES)
        parts = (
            ("kept", flow.kept.bytes, KEPT),
            ("taken out of texts", trimmed, TRIMMED),
            ("dropped", dropped, DROPPED),
        )
        scale = ROOM / max(flow.kept.bytes + trimmed + dropped, 1)  # operations may also have added some
        for what, count, color in parts:
            told = f"{name}: {size(count)} {what}, {count / read:.1%} of what was read"
            shapes.append(_rectangle(x, y + 4, count * scale, 16, color, told))
            x += count * scale
        share = f"{flow.kept.bytes / read:.0%} kept of {size(flow.read.bytes)}"
        shapes.append(_text(NAMES + ROOM + 6, y + 16, share))
    return _svg(len(flows) * ROW + 4, shapes, "What became of each source")


def legend() -> Markup:
    """What the colours of bars say."""
    keys = Markup(" ").join(
        Markup('<span class=key style="background:{}"></span> {}').format(color, what) for what, color in FATES.items()
    )
    return Markup("<p>{}</p>").format(keys)


def lengths(manifest: Manifest) -> Markup:
    """How many documents there are of each length: columns, each of lengths twice those of the one before."""
    found = manifest.lengths
    bits = range(min(found, default=1), max(found, default=0) + 1)  # those between of which there is none as well
    most = max((tally.documents for tally in found.values()), default=1)
    width, high = WIDTH / max(len(bits), 1), 140
    shapes = []
    for place, each in enumerate(bits):
        tally = found.get(each, Tally())
        height = high * tally.documents / most
        x, begins = place * width, _power_of_two(each - 1) if each else "0 B"
        told = f"{tally.documents:,} documents of {begins} or more"
        shapes.append(_rectangle(x + 1, 18 + high - height, width - 2, height, KEPT, told))
        shapes.append(_text(x + width / 2, 13 + high - height, short(f"{tally.documents:,}", width + 7), "middle"))
        shapes.append(_text(x + width / 2, high + 34, short(begins, width + 7), "middle"))
    return _svg(high + 42, shapes, "Documents by length: each column begins at the length below it")


def _power_of_two(exponent: int) -> str:
    """So many bytes: "4 KiB"."""
    return f"{2 ** (exponent % 10)} {('B', 'KiB', 'MiB', 'GiB')[exponent // 10]}"


def _told(tally: Tally) -> str:
    return f"{size(tally.bytes)} in {tally.documents:,} documents"


def _text(x: float, y: float, text: str, side: str = "start") -> Markup:
    return Markup("<text x={:.1f} y={:.0f} text-anchor={} fill=currentColor>{}</text>").format(x, y, side, text)


def _rectangle(x: float, y: float, width: float, height: float, color: str, told: str) -> Markup:
    return Markup("<rect x={:.1f} y={:.1f} width={:.1f} height={:.1f} fill='{}'><title>{}</title></rect>").format(
        x, y, width, height, color, told
    )


def _svg(height: float, shapes: Iterable[Markup], label: str) -> Markup:
    return Markup('<svg role=img aria-label="{}" viewBox="0 0 {} {}">{}</svg>').format(
        label, WIDTH, height, Markup("").join(shapes)
    )


def short(text: str, width: float) -> str:
    """As much of a text as has room in so many pixels."""
    room = max(int(width / 7) - 1, 1)
    return text if len(text) <= room else text[: room - 1] + "…"
