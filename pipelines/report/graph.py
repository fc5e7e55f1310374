"""The graph of a pipeline as SVG: layers from left to right, or top to bottom; boxes coloured by state.

Every layer holds the steps whose longest way from a source is equally long. Within a layer, steps are ordered by the
mean place of their neighbours (barycentre sweeps, as in Sugiyama, Tagawa and Toda 1981), which keeps crossings few.
An edge over several layers passes between boxes on placeholder lanes of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from pipelines.legible import duration, number
from pipelines.summary import StepSummary

BOX_WIDTH, BOX_HEIGHT = 212, 78
LANE_HEIGHT = 26  # of a placeholder
LAYER_GAP, ROW_GAP = 56, 22
MARGIN = 12
SWEEPS = 8
LONGEST_LABEL = 25  # characters that fit a box

Node = str | tuple[str, str, int]  # a step, or the place of an edge (from, to) in a layer that it passes


@dataclass(frozen=True)
class Box:
    """Where a node is: its top left corner and size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


def layers_of(inputs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The layer of each step: one more than the highest layer among its inputs. Keys in an order that can run."""
    layers: dict[str, int] = {}
    for name, sources in inputs.items():
        layers[name] = 1 + max((layers[source] for source in sources if source in layers), default=-1)
    return layers


def layout(inputs: Mapping[str, Sequence[str]]) -> tuple[dict[Node, Box], list[list[Node]]]:
    """Boxes of all steps and placeholders, and the way of each edge as the nodes that it visits."""
    layers = layers_of(inputs)
    columns: list[list[Node]] = [[] for _ in range(1 + max(layers.values(), default=-1))]
    for name, layer in layers.items():
        columns[layer].append(name)
    ways: list[list[Node]] = []
    for name, sources in inputs.items():
        for source in dict.fromkeys(sources):
            if source not in layers:
                continue
            between: list[Node] = [(source, name, layer) for layer in range(layers[source] + 1, layers[name])]
            for layer, lane in enumerate(between, layers[source] + 1):
                columns[layer].append(lane)
            ways.append([source, *between, name])
    _untangle(columns, ways)
    return _place(columns, ways), ways


def _neighbours(ways: Sequence[Sequence[Node]]) -> tuple[dict[Node, list[Node]], dict[Node, list[Node]]]:
    before: dict[Node, list[Node]] = {}
    after: dict[Node, list[Node]] = {}
    for way in ways:
        for one, other in zip(way, way[1:], strict=False):
            after.setdefault(one, []).append(other)
            before.setdefault(other, []).append(one)
    return before, after


def _untangle(columns: list[list[Node]], ways: Sequence[Sequence[Node]]) -> None:
    """Order every column by the mean place of the neighbours, forwards and backwards in turn. Ties keep their order."""
    before, after = _neighbours(ways)
    for sweep in range(SWEEPS):
        forwards = sweep % 2 == 0
        neighbours = before if forwards else after
        for column in columns if forwards else columns[::-1]:
            place = {node: index / max(len(other), 1) for other in columns for index, node in enumerate(other)}
            mean = {
                node: sum(place[other] for other in neighbours[node]) / len(neighbours[node])
                if neighbours.get(node)
                else place[node]
                for node in column
            }
            column.sort(key=mean.__getitem__)


def _height(node: Node) -> int:
    return BOX_HEIGHT if isinstance(node, str) else LANE_HEIGHT


def _place(columns: Sequence[Sequence[Node]], ways: Sequence[Sequence[Node]]) -> dict[Node, Box]:
    """Columns centred on one line, then pulled towards their neighbours as far as the order allows."""
    before, after = _neighbours(ways)
    boxes: dict[Node, Box] = {}
    for layer, column in enumerate(columns):
        y = -(sum(_height(node) for node in column) + ROW_GAP * (len(column) - 1)) / 2
        for node in column:
            boxes[node] = Box(layer * (BOX_WIDTH + LAYER_GAP), y, BOX_WIDTH, _height(node))
            y += _height(node) + ROW_GAP
    for sweep in range(SWEEPS):
        for column in columns if sweep % 2 == 0 else columns[::-1]:
            _pull(column, boxes, before if sweep % 2 == 0 else after)
    top = min((box.y for box in boxes.values()), default=0)
    return {node: Box(box.x + MARGIN, box.y - top + MARGIN, box.width, box.height) for node, box in boxes.items()}


def _pull(column: Sequence[Node], boxes: dict[Node, Box], neighbours: Mapping[Node, list[Node]]) -> None:
    """Move a column's nodes towards the mean of their neighbours; then apart, evenly to both sides, until none touch."""
    wanted = []
    for node in column:
        near = [boxes[other].middle for other in neighbours.get(node, [])]
        wanted.append(sum(near) / len(near) if near else boxes[node].middle)
    groups: list[tuple[float, float, list[Node]]] = []  # middle, height, nodes: touching nodes move as one
    for node, middle in zip(column, wanted, strict=True):
        group = (middle, float(_height(node)), [node])
        while groups and groups[-1][0] + groups[-1][1] / 2 + ROW_GAP > group[0] - group[1] / 2:
            last = groups.pop()
            count, more = len(last[2]), len(group[2])
            # The middle of the union that leaves each part as near as possible to where it wanted to be.
            height = last[1] + ROW_GAP + group[1]
            from_last, from_group = last[0] + (height - last[1]) / 2, group[0] - (height - group[1]) / 2
            group = ((count * from_last + more * from_group) / (count + more), height, last[2] + group[2])
        groups.append(group)
    for middle, height, nodes in groups:
        y = middle - height / 2
        for node in nodes:
            boxes[node] = Box(boxes[node].x, y, boxes[node].width, boxes[node].height)
            y += boxes[node].height + ROW_GAP


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
}
"""


def graph_svg(steps: Sequence[StepSummary], links: bool = False) -> str:
    """A self-contained SVG of a run's steps. `links`: boxes lead to the anchors `#step-NAME` of the page around it."""
    boxes, ways = layout({step.name: step.inputs for step in steps})
    width = max((box.x + box.width for box in boxes.values()), default=0) + MARGIN
    height = max((box.y + box.height for box in boxes.values()), default=0) + MARGIN
    described = "; ".join(f"{step.name}: {step.state}" + _after(step) for step in steps)
    parts = [
        f'<svg class="graph" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" aria-labelledby="graph-title graph-desc">',
        '<title id="graph-title">The steps of the pipeline and what feeds them</title>',
        f'<desc id="graph-desc">{escape(described)}</desc>',
        f"<style>{STYLE}</style>",
        *(_edge([boxes[node] for node in way]) for way in ways),
        *(_box(step, boxes[step.name], links) for step in steps),
        "</svg>",
    ]
    return "\n".join(parts)


def _after(step: StepSummary) -> str:
    return f", after {', '.join(step.inputs)}" if step.inputs else ""


def _edge(way: Sequence[Box]) -> str:
    """A smooth line from the right side of the first box, along the lanes, to the left side of the last."""
    x, y = way[0].x + way[0].width, way[0].middle
    path = [f"M{x:.1f} {y:.1f}"]
    for index, box in enumerate(way[1:], 1):
        last = index == len(way) - 1
        to_x = box.x - (6 if last else 0)
        bend = (to_x - x) / 2
        path.append(f"C{x + bend:.1f} {y:.1f} {to_x - bend:.1f} {box.middle:.1f} {to_x:.1f} {box.middle:.1f}")
        if not last:
            path.append(f"H{box.x + box.width:.1f}")
        x, y = box.x + box.width, box.middle
    end = way[-1]
    head = f"M{end.x - 1:.1f} {end.middle:.1f}l-8 -4.5v9z"
    return f'<path class="edge" d="{"".join(path)}"/><path class="head" d="{head}"/>'


def _box(step: StepSummary, box: Box, links: bool) -> str:
    second = step.stage if step.seconds is None else f"{step.stage} · {duration(step.seconds)}"
    if step.state != "done":
        second = f"{second} · {step.state}"
    third = "" if step.headline is None else f"{step.headline[0]} {number(step.headline[1])}"
    text_x = box.x + 18
    lines = [
        f'<text class="name" x="{text_x:.1f}" y="{box.y + 25:.1f}">{escape(_short(step.name, LONGEST_LABEL - 3))}</text>',
        f'<text class="what" x="{text_x:.1f}" y="{box.y + 45:.1f}">{escape(_short(second, LONGEST_LABEL + 5))}</text>',
        f'<text class="what" x="{text_x:.1f}" y="{box.y + 63:.1f}">{escape(_short(third, LONGEST_LABEL + 5))}</text>',
    ]
    drawn = (
        f'<g class="{step.state}"><title>{escape(f"{step.name}: {step.reason}")}</title>'
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width}" height="{box.height}" rx="8"/>'
        f'<rect class="bar" x="{box.x + 6:.1f}" y="{box.y + 10:.1f}" width="4" height="{box.height - 20}" rx="2"/>'
        f"{''.join(lines)}</g>"
    )
    return f'<a href="#step-{escape(step.name, quote=True)}">{drawn}</a>' if links else drawn


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
