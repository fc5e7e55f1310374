"""Loads are applied with the stated concurrency, and percentiles are those of the definition."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from stages.serving.trial import apply_loads, latency_figure, legible, percentile


def test_every_request_is_sent_once_by_one_client_and_once_by_several() -> None:
    sent: list[int] = []
    running, most, lock = 0, [], threading.Lock()

    def send(index: int) -> int:
        nonlocal running
        with lock:
            running += 1
            most.append(running)
            sent.append(index)
        time.sleep(0.02)
        with lock:
            running -= 1
        return 10 * index

    seen: list[tuple[int, int]] = []
    alone, together = apply_loads(send, 6, 3, lambda *values: seen.append(values))
    assert alone.timings == together.timings == (0, 10, 20, 30, 40, 50)
    assert sorted(sent) == sorted([*range(6)] * 2)
    assert max(most[:6]) == 1
    assert 1 < max(most[6:]) <= 3
    assert (alone.clients, together.clients) == ("1 client", "3 clients")
    assert alone.seconds >= 6 * 0.02
    assert alone.requests_per_second == pytest.approx(6 / alone.seconds)
    assert seen == [(6, 12), (12, 12)]


def test_percentiles_interpolate() -> None:
    assert percentile([3.0], 95) == 3
    assert percentile([4.0, 1.0, 2.0, 3.0, 5.0], 50) == 3
    assert percentile([0.0, 10.0], 95) == pytest.approx(9.5)


def test_the_figure_shows_every_load_by_name() -> None:
    curves = {"1 client": [1.0, 2.0], "4 clients": [3.0, 5.0, 4.0]}
    figure = latency_figure(curves, "latency (ms)", {"1 client": 10.0, "4 clients": 20.0}, "requests per second")
    left, right = figure.axes
    legend = left.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(curves)
    assert [np.asarray(line.get_xdata()).tolist() for line in left.lines] == [[1, 1, 2], [3, 3, 4, 5]]
    assert [bar.get_height() for bar in right.patches if isinstance(bar, Rectangle)] == [10, 20]
    assert (left.get_xlabel(), right.get_ylabel()) == ("latency (ms)", "requests per second")


def test_json_is_shown_as_a_person_reads_it() -> None:
    assert legible({"mean": [0.123456789, 2], "unit": {"name": "m", "si": True}, "x": None}) == (
        "mean: 0.123457, 2\nunit: (name: m, si: true)\nx: null"
    )
    assert legible(list(range(30)), most=3) == "0, 1, 2, … (30 values)"
