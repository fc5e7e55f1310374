"""The curves of the live page: which are drawn, in which units, and whether their labels are within the picture."""

from __future__ import annotations

import re

from pipelines.live import fragments
from pipelines.report import plots

MIB = 2.0**20


def test_a_constant_metric_takes_no_figure_but_is_named() -> None:
    html = str(
        fragments.curves(
            {
                "memory_files_bytes": [(1, 0.0), (2, 0.0)],
                "batch_size": [(1, 8.0), (2, 8.0)],
                "loss": [(1, 3.0), (2, 2.0)],
            }
        )
    )
    assert re.findall("<figcaption>(.*?)</figcaption>", html) == ["loss: 2"]
    assert "Constant: memory files 0 B, batch size 8" in html or "Constant: batch size 8, memory files 0 B" in html


def test_axis_and_caption_of_bytes_have_the_same_unit() -> None:
    html = str(fragments.curves({"memory_process_bytes": [(at, (280 + at) * MIB) for at in range(40)]}))
    assert "<figcaption>memory process: 319.0 MiB</figcaption>" in html
    upright = re.findall(r'text-anchor="end">([^<]* [^<]*)</text>', html)
    assert upright == ["280 MiB", "290 MiB", "300 MiB", "310 MiB"]
    assert "319 MiB at 39" in html
    assert "0 B" in str(fragments.curves({"sent_bytes": [(1, 5.0), (2, 0.0)]}))


def test_the_labels_of_a_small_plot_are_within_it() -> None:
    html = str(fragments.curves({"memory_process_bytes": [(at, 1000.5 * MIB + at) for at in range(0, 150_001, 500)]}))
    found = re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="(\w+)">([^<]*)<', html)
    assert len(found) > 4
    for x, anchor, label in found:
        share = {"end": 1.0, "middle": 0.5, "start": 0.0}[anchor]
        width = plots.LETTER_WIDTH * len(label)
        assert float(x) - share * width >= 0, label
        assert float(x) + (1 - share) * width <= plots.SMALL[0], label


def test_a_long_curve_is_drawn_to_both_of_its_ends() -> None:
    points = [(at, float((at - 500) ** 2 % 97)) for at in range(1, 1000)]
    drawn = fragments.drawn_points([(0, 50.0), *points, (1000, 50.0)])
    assert (drawn[0], drawn[-1]) == ((0, 50.0), (1000, 50.0))
    assert len(drawn) <= fragments.POINTS
    assert max(value for _, value in drawn) == max(value for _, value in points)
