"""The graph of a pipeline as SVG: layers from top to bottom, boxes coloured by state.

Every layer holds the steps whose longest way from a source is equally long. Within a layer, steps are ordered by the
mean place of their neighbours (barycentre sweeps, as in Sugiyama, Tagawa and Toda 1981), which keeps crossings few.
An edge over several layers passes between boxes on separate placeholder lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from pipelines.formatting import duration, quantity
from pipelines.summary import StepSummary

BOX_WIDTH, BOX_HEIGHT = 212, 74
LANE_WIDTH = 10  # of a placeholder
LAYER_GAP, GAP = 44, 24
MARGIN = 12
SWEEPS = 8
LONGEST_NAME, LONGEST_LINE = 22, 30  # characters that fit a box
NARROWEST = 620  # pixels: on a narrower screen the drawing scrolls rather than shrinks
MOST_STEPS = 200  # a drawing of more steps is not readable

Node = str | tuple[str, str, int]  # a step, or the place of an edge (from, to) in a layer that it passes


@dataclass(frozen=True)
class Box:
    """Where a node is: its top left corner and width. All are equally high."""

    x: float
    y: float
    width: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        return self.y + BOX_HEIGHT


def layers_of(inputs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The layer of each step: one more than the highest layer among its inputs. Keys in an order that can run."""
    layers: dict[str, int] = {}
    for name, sources in inputs.items():
        layers[name] = 1 + max((layers[source] for source in sources if source in layers), default=-1)
    return layers


def layout(inputs: Mapping[str, Sequence[str]]) -> tuple[dict[Node, Box], list[list[Node]]]:
    """Boxes of all steps and placeholders, and the way of each edge as the nodes that it visits."""
    layers = layers_of(inputs)
    rows: list[list[Node]] = [[] for _ in range(1 + max(layers.values(), default=-1))]
    for name, layer in layers.items():
        rows[layer].append(name)
    ways: list[list[Node]] = []
    for name, sources in inputs.items():
        for source in dict.fromkeys(sources):
            if source not in layers:
                continue
            between: list[Node] = [(source, name, layer) for layer in range(layers[source] + 1, layers[name])]
            for layer, lane in enumerate(between, layers[source] + 1):
                rows[layer].append(lane)
            ways.append([source, *between, name])
    _untangle(rows, ways)
    return _place(rows, ways), ways


def _neighbours(ways: Sequence[Sequence[Node]]) -> tuple[dict[Node, list[Node]], dict[Node, list[Node]]]:
    before: dict[Node, list[Node]] = {}
    after: dict[Node, list[Node]] = {}
    for way in ways:
        for one, other in pairwise(way):
            after.setdefault(one, []).append(other)
            before.setdefault(other, []).append(one)
    return before, after


def _untangle(rows: list[list[Node]], ways: Sequence[Sequence[Node]]) -> None:
    """Order every row by the mean place of the neighbours, downwards and upwards in turn. Ties keep their order."""
    before, after = _neighbours(ways)
    place = {node: index / len(row) for row in rows for index, node in enumerate(row)}
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        neighbours = before if downwards else after
        for row in rows if downwards else rows[::-1]:
            mean = {node: _mean([place[other] for other in neighbours.get(node, [])], place[node]) for node in row}
            row.sort(key=mean.__getitem__)
            place.update({node: index / len(row) for index, node in enumerate(row)})


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _width(node: Node) -> float:
    return BOX_WIDTH if isinstance(node, str) else LANE_WIDTH


def _place(rows: Sequence[Sequence[Node]], ways: Sequence[Sequence[Node]]) -> dict[Node, Box]:
    """Rows centred on one line, then pulled towards their neighbours as far as the order allows."""
    before, after = _neighbours(ways)
    boxes: dict[Node, Box] = {}
    for layer, row in enumerate(rows):
        x = -(sum(_width(node) for node in row) + GAP * (len(row) - 1)) / 2
        for node in row:
            boxes[node] = Box(x, layer * (BOX_HEIGHT + LAYER_GAP), _width(node))
            x += _width(node) + GAP
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            _pull(row, boxes, before if sweep % 2 == 0 else after)
    left = min((box.x for box in boxes.values()), default=0)
    return {node: Box(box.x - left + MARGIN, box.y + MARGIN, box.width) for node, box in boxes.items()}


def _pull(row: Sequence[Node], boxes: dict[Node, Box], neighbours: Mapping[Node, list[Node]]) -> None:
    """Move a row's nodes to the mean of their neighbours, and where they would overlap, as near to it as can be."""
    groups: list[tuple[float, float, list[Node]]] = []  # middle, width, nodes: nodes that touch move as one
    for node in row:
        wanted = _mean([boxes[other].middle for other in neighbours.get(node, [])], boxes[node].middle)
        group = (wanted, _width(node), [node])
        while groups and groups[-1][0] + groups[-1][1] / 2 + GAP > group[0] - group[1] / 2:
            last = groups.pop()
            width = last[1] + GAP + group[1]
            # Where each part would have the middle of the union; they vote by their number of nodes.
            votes = [last[0] + (width - last[1]) / 2] * len(last[2]) + [group[0] - (width - group[1]) / 2] * len(
                group[2]
            )
            group = (_mean(votes, 0), width, last[2] + group[2])
        groups.append(group)
    for middle, width, nodes in groups:
        x = middle - width / 2
        for node in nodes:
            boxes[node] = Box(x, boxes[node].y, boxes[node].width)
            x += boxes[node].width + GAP


# ---------------------------------------------------------------------------------------------------------------
# Drawing

STYLE = """
.graph{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
.graph .edge{fill:none;stroke:#98a2b3;stroke-width:1.5}
.graph .head{fill:#98a2b3}
.graph rect{fill:#fff;stroke:#d0d5dd;stroke-width:1}
.graph .bar{stroke:none}
.graph .name{font-weight:600;font-size:15px;fill:#101828}
.graph .what{font-size:12px;fill:#475467}
.graph .done .bar{fill:#12875a}.graph .cached .bar{fill:#3b6fd4}.graph .failed .bar{fill:#c8352b}
.graph .running .bar{fill:#b7791f}.graph .stopped .bar{fill:#9a6700}.graph .skipped .bar,.graph .waiting .bar,
.graph .unselected .bar{fill:#98a2b3}
.graph .failed rect:first-child{stroke:#c8352b}
.graph .skipped .name,.graph .waiting .name,.graph .unselected .name{fill:#667085;font-weight:500}
@media (prefers-color-scheme:dark){
.graph .edge{stroke:#667085}.graph .head{fill:#667085}
.graph rect{fill:#1c222b;stroke:#3a4350}
.graph .name{fill:#f2f4f7}.graph .what{fill:#a9b3c1}
.graph .done .bar{fill:#3fb884}.graph .cached .bar{fill:#7aa7f7}.graph .failed .bar{fill:#f0776c}
.graph .running .bar,.graph .stopped .bar{fill:#e3b341}
.graph .failed rect:first-child{stroke:#f0776c}
.graph .skipped .name,.graph .waiting .name,.graph .unselected .name{fill:#8d98a8}
}
"""


def graph_svg(steps: Sequence[StepSummary], address: Callable[[str], str] | None = None) -> str:
    """A self-contained SVG of a run's steps. `address`: where the box of a step leads, by the step's name."""
    if len(steps) > MOST_STEPS:
        return (
            '<svg class="graph" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 480 40" width="480" height="40">'
            f'<text x="0" y="25" fill="#667085">{len(steps)} steps: too many to draw.</text></svg>'
        )
    boxes, ways = layout({step.name: step.inputs for step in steps})
    width = max((box.x + box.width for box in boxes.values()), default=0) + MARGIN
    height = max((box.bottom for box in boxes.values()), default=0) + MARGIN
    described = "; ".join(f"{step.name}: {step.state}" + _after(step) for step in steps)
    parts = [
        f'<svg class="graph" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" '
        f'style="min-width:{min(width, NARROWEST):.0f}px" aria-labelledby="graph-title graph-desc">',
        '<title id="graph-title">The steps of the pipeline and what feeds them</title>',
        f'<desc id="graph-desc">{escape(described)}</desc>',
        f"<style>{STYLE}</style>",
        *(_edge([boxes[node] for node in way]) for way in ways),
        *(_box(step, boxes[step.name], address) for step in steps),
        "</svg>",
    ]
    return "\n".join(parts)


def _after(step: StepSummary) -> str:
    return f", after {', '.join(step.inputs)}" if step.inputs else ""


def _edge(way: Sequence[Box]) -> str:
    """A smooth line from below the first box, straight through the lanes, to the top of the last."""
    x, y = way[0].middle, way[0].bottom
    path = [f"M{x:.1f} {y:.1f}"]
    for index, box in enumerate(way[1:], 1):
        last = index == len(way) - 1
        to_x, to_y = box.middle, box.y - (6 if last else 0)
        bend = (to_y - y) * 0.55
        path.append(f"C{x:.1f} {y + bend:.1f} {to_x:.1f} {to_y - bend:.1f} {to_x:.1f} {to_y:.1f}")
        if not last:
            path.append(f"V{box.bottom:.1f}")
        x, y = to_x, box.bottom
    head = f"M{way[-1].middle:.1f} {way[-1].y - 1:.1f}l-4.5 -8h9z"
    return f'<path class="edge" d="{"".join(path)}"/><path class="head" d="{head}"/>'


def _box(step: StepSummary, box: Box, address: Callable[[str], str] | None) -> str:
    second = step.stage if step.seconds is None else f"{step.stage} · {duration(step.seconds)}"
    if step.state != "done":
        second = f"{second} · {step.state}"
    third = "" if step.headline is None else " ".join(quantity(*step.headline))
    lines = "".join(
        f'<text class="{kind}" x="{box.x + 18:.1f}" y="{box.y + down:.1f}">{escape(_short(text, limit))}</text>'
        for kind, down, text, limit in (
            ("name", 25, step.name, LONGEST_NAME),
            ("what", 44, second, LONGEST_LINE),
            ("what", 61, third, LONGEST_LINE),
        )
    )
    drawn = (
        f'<g class="{step.state}"><title>{escape(f"{step.name}: {step.reason}")}</title>'
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width}" height="{BOX_HEIGHT}" rx="8"/>'
        f'<rect class="bar" x="{box.x + 6:.1f}" y="{box.y + 10:.1f}" width="4" height="{BOX_HEIGHT - 20}" rx="2"/>'
        f"{lines}</g>"
    )
    return f'<a href="{escape(address(step.name), quote=True)}">{drawn}</a>' if address else drawn


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
