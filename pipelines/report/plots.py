"""Plots as SVG within a page: no script, no image. A value is shown while the pointer rests on its mark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipelines.curves import Curve
from pipelines.formatting import number, short_value
from pipelines.report.axis import axis_of

WIDTH = 720
HEIGHT = 320
SMALL = (320, 180)  # width and height of one of many plots, whose letters stay legible at a third of a window
MARGIN = 56
LINE_HEIGHT, LETTER_WIDTH = 18, 7.5  # of a label, in the unit of the plot
# Okabe and Ito, "Color Universal Design" (2008): distinct for every kind of colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8f7f00", "#6b7280")
LINE = Markup('<polyline fill="none" stroke="{}" stroke-width="2" points="{}"><title>{}</title></polyline>')
BEST, WORST = (16, 92, 190), (214, 222, 235)  # of a scale from the best job to the worst


@dataclass(frozen=True)
class Line:
    """A curve of one job."""

    label: str
    colour: str
    points: Curve


def colour(place: int, of: int) -> str:
    """The colour of the job at a place, the best first: one of eight, or with more jobs a shade."""
    if of <= len(COLOURS):
        return COLOURS[place]
    return shade(place / max(of - 1, 1))


def shade(badness: float) -> str:
    """From the best (0) to the worst (1)."""
    red, green, blue = (round(best + badness * (worst - best)) for best, worst in zip(BEST, WORST, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"


def curves(title: str, lines: Sequence[Line], unit: str = "", extent: tuple[int, int] = (WIDTH, HEIGHT)) -> Markup:
    """Curves over the same axis, the best job drawn last. `unit`: of the values. `extent`: width and height."""
    across = axis_of([at for line in lines for at, _ in line.points], may_be_logarithmic=False)
    up = axis_of([value for line in lines for _, value in line.points])
    width, height = extent
    labels = [(f"{label} {unit}".rstrip(), at) for label, at in _apart(up.marks(), height)]
    left = max(MARGIN if extent == (WIDTH, HEIGHT) else 0, *(16 + LETTER_WIDTH * len(label) for label, _ in labels))

    def right(place: float) -> float:
        return left + place * (width - left - 16)

    def point(at: float, value: float) -> str:
        x, y = across.place(at), up.place(value)
        return "" if x is None or y is None else f"{right(x):.1f},{_down(y, height):.1f}"

    drawn = Markup("").join(
        LINE.format(line.colour, " ".join(point(at, value) for at, value in line.points), _ends(line, unit))
        for line in reversed(lines)
    )
    grid = Markup(
        '<line class="grid" x1="{0:.1f}" y1="{1:.1f}" x2="{2}" y2="{1:.1f}"/>'
        '<text x="{3:.1f}" y="{4:.1f}" text-anchor="end">{5}</text>'
    )
    frame = [
        grid.format(left, _down(at, height), width - 16, left - 8, _down(at, height) + 4, label) for label, at in labels
    ]
    frame += [
        Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
            right(at), height - 14, "end" if at > 0.95 else "middle", label
        )
        for label, at in across.marks()
    ]
    return _svg(title, Markup("").join(frame) + drawn, extent)


def parallel_coordinates(title: str, columns: Mapping[str, Sequence[str | float]], colours: Sequence[str]) -> Markup:
    """A line for each job through its value on each axis. `columns`: title -> the value of each job, the best first."""
    axes = {name: axis_of(values) for name, values in columns.items()}
    gap = (WIDTH - 2 * MARGIN) / max(len(axes) - 1, 1)
    places = {name: MARGIN + index * gap for index, name in enumerate(axes)}
    parts = []
    for job in reversed(range(len(colours))):
        found = {name: axes[name].place(values[job]) for name, values in columns.items()}
        points = " ".join(f"{places[name]:.1f},{_down(at):.1f}" for name, at in found.items() if at is not None)
        said = ", ".join(f"{name} {_shown(values[job])}" for name, values in columns.items())
        parts.append(
            Markup(
                '<polyline fill="none" stroke="{}" stroke-width="2" points="{}"><title>{}</title></polyline>'
            ).format(colours[job], points, said)
        )
    for name, axis in axes.items():
        x = places[name]
        last = name == list(axes)[-1] and len(axes) > 1
        room = gap / 2 - 16 if name in list(axes)[-2:] else gap - 24  # the labels of the last axis are on its left
        parts.append(Markup('<line class="axis" x1="{0}" y1="{1}" x2="{0}" y2="{2}"/>').format(x, _down(1), _down(0)))
        anchor, at = ("end", WIDTH - 8) if last else ("middle", x)
        if len(axes) > 1 and name == next(iter(axes)):
            anchor, at = "start", 8
        heading = Markup('<text class="name" x="{:.1f}" y="20" text-anchor="{}">{}<title>{}</title></text>')
        parts.append(heading.format(at, anchor, _fitting(name, gap - 16), name))
        parts += [
            Markup('<text class="mark" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
                x - 8 if last else x + 8, _down(at) + 4, "end" if last else "start", _fitting(short_value(label), room)
            )
            for label, at in _apart(axis.marks())
        ]
    return _svg(title, Markup("").join(parts))


def heat_map(title: str, names: tuple[str, str], cells: Mapping[tuple[str, str], float], sign: int) -> Markup:
    """A cell for each pair of values. `sign`: 1 if less is better, -1 if more is."""
    across = _sorted({first for first, _ in cells})
    down = _sorted({second for _, second in cells})
    low, high = min(cells.values()), max(cells.values())
    width, height = (WIDTH - 3 * MARGIN) / len(across), (HEIGHT - 2 * MARGIN) / len(down)
    parts = [
        Markup('<text class="name" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            1.5 * MARGIN + width * len(across) / 2, HEIGHT - 8, names[0]
        ),
        Markup('<text class="name" x="8" y="20">{}</text>').format(names[1]),
    ]
    for (first, second), value in cells.items():
        x, y = 1.5 * MARGIN + across.index(first) * width, 32 + down.index(second) * height
        badness = 0.0 if high == low else (value - low) / (high - low)
        badness = badness if sign > 0 else 1 - badness
        parts.append(
            Markup(
                '<g><title>{} {}, {} {}: {}</title><rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="3" '
                'fill="{}"/><text x="{:.1f}" y="{:.1f}" text-anchor="middle" style="fill:{}">{}</text></g>'
            ).format(
                names[0],
                first,
                names[1],
                second,
                number(value),
                x + 1,
                y + 1,
                width - 2,
                height - 2,
                shade(badness),
                x + width / 2,
                y + height / 2 + 4,
                "#fff" if badness < 0.5 else "#101828",
                number(value),
            )
        )
    parts += [
        Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            1.5 * MARGIN + (index + 0.5) * width, HEIGHT - MARGIN / 2 - 2, short_value(text)
        )
        for index, text in enumerate(across)
    ]
    parts += [
        Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
            1.5 * MARGIN - 8, 36 + (index + 0.5) * height, short_value(text)
        )
        for index, text in enumerate(down)
    ]
    return _svg(title, Markup("").join(parts))


def _svg(title: str, body: Markup, extent: tuple[int, int] = (WIDTH, HEIGHT)) -> Markup:
    return Markup(
        '<figure class="plot"><svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
        "<figcaption>{}</figcaption></figure>"
    ).format(*extent, title, body, title)


def _apart(marks: Sequence[tuple[str, float]], height: int = HEIGHT) -> list[tuple[str, float]]:
    """The marks of an upright axis without those whose labels would cover others; the outermost stay."""
    ordered = sorted(marks, key=lambda mark: mark[1])
    kept = ordered[:1]
    for mark in ordered[1:-1]:
        below, at, above = (_down(place, height) for place in (kept[-1][1], mark[1], ordered[-1][1]))
        if min(below - at, at - above) >= LINE_HEIGHT:
            kept.append(mark)
    return [*kept, *ordered[1:][-1:]]


def _fitting(text: str, width: float) -> str:
    """A text without its middle if it is wider than that."""
    most = max(int(width / LETTER_WIDTH), 3)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-((most - 1) // 2) :]}"


def _down(place: float, height: int = HEIGHT) -> float:
    return height - 36 - place * (height - 36 - 36)


def _ends(line: Line, unit: str) -> str:
    (first, start), (last, end) = line.points[0], line.points[-1]
    before, after = (f"{number(value)} {unit}".rstrip() for value in (start, end))
    return f"{line.label}: {before} at {first}, {after} at {last}"


def _shown(value: str | float) -> str:
    return short_value(value) if isinstance(value, str) else number(value)


def _sorted(values: set[str]) -> list[str]:
    """Values in the order of an axis: numbers by size, others as texts."""
    axis = axis_of(sorted(values))
    return sorted(values, key=lambda value: (axis.place(value) or 0.0, value))
