"""A tree map of a corpus: a rectangle for each language, divided by source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stages.artifacts.manifest import Manifest

COLORS = ("#2f6f4f", "#4f6f8f", "#8f6f2f", "#7f4f6f", "#5f7f3f", "#2f7f8f", "#8f4f3f", "#5f5f8f", "#6f6f6f")


@dataclass(frozen=True)
class Tile:
    """The bytes kept of a source in a language, and its rectangle in pixels."""

    language: str
    source: str
    bytes: int
    color: str  # of the language
    x: float
    y: float
    width: float
    height: float


def tiles(manifest: Manifest, width: float, height: float) -> Iterator[Tile]:
    """Rectangles that fill `width` x `height` with areas proportional to the bytes kept, the largest at the origin."""
    sizes: dict[str, dict[str, int]] = {}
    for cell in manifest.cells:
        if cell.flow.kept.bytes:
            sources = sizes.setdefault(cell.language, {})
            sources[cell.source] = sources.get(cell.source, 0) + cell.flow.kept.bytes
    languages = sorted(sizes.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    outer = squarified([sum(sources.values()) for _, sources in languages], 0, 0, width, height)
    for number, ((language, sources), outline) in enumerate(zip(languages, outer, strict=True)):
        ordered = sorted(sources.items(), key=lambda item: (-item[1], item[0]))
        inner = squarified([count for _, count in ordered], *outline)
        for (source, count), rectangle in zip(ordered, inner, strict=True):
            yield Tile(language, source, count, COLORS[number % len(COLORS)], *rectangle)


def squarified(
    sizes: Sequence[float], x: float, y: float, width: float, height: float
) -> list[tuple[float, float, float, float]]:
    """Rectangles (x, y, width, height) with areas proportional to `sizes`, which descend, and sides of similar length.

    Bruls, Huizing and van Wijk, "Squarified treemaps" (2000).
    """
    found: list[tuple[float, float, float, float]] = []
    scale = width * height / sum(sizes) if sizes else 0.0
    areas = [each * scale for each in sizes]
    while areas:
        side = min(width, height)
        count = 1
        while count < len(areas) and _worst(areas[: count + 1], side) <= _worst(areas[:count], side):
            count += 1
        row, areas = areas[:count], areas[count:]
        depth = sum(row) / side if side else 0.0
        place = 0.0
        for area in row:
            length = area / depth if depth else 0.0
            found.append((x, y + place, depth, length) if width >= height else (x + place, y, length, depth))
            place += length
        if width >= height:
            x, width = x + depth, width - depth
        else:
            y, height = y + depth, height - depth
    return found


def _worst(row: Sequence[float], side: float) -> float:
    """The largest ratio of the sides of the rectangles in a strip along `side`."""
    total = sum(row)
    return max(max(side**2 * area / total**2, total**2 / (side**2 * area)) for area in row)
