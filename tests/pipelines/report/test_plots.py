"""Plots whose labels can be read."""

from __future__ import annotations

import re
from itertools import pairwise

from pipelines.report import plots
from pipelines.report.plots import LETTER_WIDTH, LINE_HEIGHT, WIDTH

MARK = re.compile(r'<text class="mark" x="([\d.]+)" y="([\d.]+)" text-anchor="(start|end)">([^<]*)')
NAME = re.compile(r'<text class="name" x="([\d.]+)" y="20" text-anchor="(start|middle|end)">([^<]*)<title>([^<]*)')
LONG = "a_very_long_name_of_a_model_file"


def spans(found: list[tuple[float, str, str]]) -> list[tuple[float, float]]:
    """Where texts begin and end, from their place and the side that is there."""
    widths = {"start": (0.0, 1.0), "middle": (0.5, 0.5), "end": (1.0, 0.0)}
    return sorted(
        (x - widths[anchor][0] * len(text) * LETTER_WIDTH, x + widths[anchor][1] * len(text) * LETTER_WIDTH)
        for x, anchor, text in found
    )


def test_labels_of_parallel_coordinates_do_not_cover_each_other() -> None:
    columns: dict[str, list[str | float]] = {
        "steps.pretrain.learning_rate": ["0.001", "0.0011", "0.0012", "0.01"],
        "model": ["opt_125m", "bloom_560m", "opt_125m", LONG],
        "evaluate validation bits per byte": [2.41, 2.411, 2.5, 3.0],
    }
    drawn = str(plots.parallel_coordinates("Jobs", columns, ["#000"] * 4))
    marks = [(float(x), float(y), anchor, text) for x, y, anchor, text in MARK.findall(drawn)]
    of_axis: dict[float, list[float]] = {}
    for x, y, _, _ in marks:
        of_axis.setdefault(x, []).append(y)
    for places in of_axis.values():
        ordered = sorted(places)
        assert all(below - above >= LINE_HEIGHT for above, below in pairwise(ordered))
    assert {"0.001", "0.01", "2.41", "3"} <= {text for *_, text in marks}, "the outermost values keep their labels"
    for height in {y for _, y, _, _ in marks}:
        row = spans([(x, anchor, text) for x, y, anchor, text in marks if abs(y - height) < LINE_HEIGHT])
        assert all(left <= right for (_, left), (right, _) in pairwise(row))
    names = NAME.findall(drawn)
    assert [whole for *_, whole in names] == list(columns)
    row = spans([(float(x), anchor, text) for x, anchor, text, _ in names])
    assert all(left <= right for (_, left), (right, _) in pairwise(row))
    assert row[0][0] >= 0
    assert row[-1][1] <= WIDTH
    assert "<figcaption>Jobs</figcaption>" in drawn
