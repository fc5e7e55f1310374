"""The report: it is complete, escapes all text, and a browser shows it without any request."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import formatting
from pipelines.execute import FIGURE_STYLE
from pipelines.report.graph_drawing import BOX_HEIGHT, GAP, MOST_STEPS, graph_svg, layers_of, layout
from pipelines.report.page import render, write
from tests.pipelines import samples

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Parses a page, fails on tags that do not match, and keeps tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.tags if "id" in attributes]


def test_a_path_that_is_not_utf_8_can_be_reported(tmp_path: Path) -> None:
    path = write(samples.run(tmp_path, notes=("kept in /data/\udcff",)), tmp_path / "report.html")
    assert "kept in /data/?" in path.read_text("utf-8")


def test_the_page_describes_the_run(tmp_path: Path) -> None:
    sample = samples.run(tmp_path, notes=("MLflow did not accept everything",))
    page = Page(render(sample))
    for wanted in (
        "0123456789ab with uncommitted changes",
        "MLflow did not accept everything",
        "bloomline run pipeline=demo",
        sample.steps[1].fingerprint,
        "/store/pretrain",
        "hello <world>",
        "name: demo",
        "warmup_steps: 4",
        "4.0 KiB",
    ):
        assert wanted in page.text
    assert len(page.ids()) == len(set(page.ids()))
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert {f"#step-{step.name}" for step in sample.steps} | {"#result", "#graph", "#steps", "#again"} < links
    assert {link[1:] for link in links if link} <= set(page.ids())
    images = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 1
    assert images[0].startswith("data:image/png;base64,")


def test_a_failure_stands_out(tmp_path: Path) -> None:
    sample = samples.run(tmp_path, state="failed")
    failed = replace(sample.steps[1], state="failed", error="no memory: ask for less", artifact=None)
    page = Page(render(replace(sample, steps=(sample.steps[0], failed))))
    assert "no memory: ask for less" in page.text
    assert ("div", {"class": "error", "role": "alert"}) in page.tags


def test_nothing_in_the_page_asks_for_anything_outside(tmp_path: Path) -> None:
    text = render(samples.run(tmp_path))
    found = Page(text).tags
    assert not {tag for tag, _ in found} & {"script", "object", "base", "form"}
    assert [set(attributes) for tag, attributes in found if tag == "iframe"] == [{"title", "sandbox", "srcdoc"}]
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert not re.search(r"@import|url\(", text)


EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"


def test_what_comes_from_a_run_is_text_wherever_it_stands(tmp_path: Path) -> None:
    sample = samples.run(tmp_path)
    step = replace(
        sample.steps[1],
        name=EVIL,
        stage=EVIL,
        reason=EVIL,
        error=EVIL,
        artifact=EVIL,
        fingerprint=EVIL,
        headline=(EVIL, 1.0),
        metrics={EVIL: 1.0},
        highlights={EVIL: EVIL},
        config={EVIL: {EVIL: EVIL}},
        figures={EVIL: tmp_path / "missing.png"},
        pages={EVIL: tmp_path / "missing.md"},
        inputs=(),
    )
    evil = replace(
        sample,
        pipeline=EVIL,
        command=EVIL,
        config_yaml=EVIL,
        notes=(EVIL,),
        git_commit=EVIL,
        versions={EVIL: EVIL},
        steps=(step, replace(step, name="after", inputs=(EVIL,))),
    )
    page = Page(render(evil))
    (tmp_path / "loss.png").unlink()  # as the evil one's is
    harmless = Page(
        render(replace(sample, notes=("a note",), steps=(replace(sample.steps[1], error="no"), *sample.steps[2:])))
    )
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in harmless.tags}
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert page.text.count(EVIL) > 10
    ElementTree.fromstring(graph_svg(evil.steps))


def test_a_figure_that_is_gone_or_no_picture_is_named(tmp_path: Path) -> None:
    sample = samples.run(tmp_path)
    (tmp_path / "loss.png").write_text("<svg onload=alert(1)>")
    page = Page(render(sample))
    assert "The figure loss can't be shown" in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]


def test_a_page_is_shown_in_a_frame_that_nothing_leaves(tmp_path: Path) -> None:
    sample = samples.run(tmp_path)
    (tmp_path / "card.html").write_text(EVIL)
    (tmp_path / "card.md").write_text(EVIL)
    pages = {"card.html": tmp_path / "card.html", "card.md": tmp_path / "card.md", "gone.html": tmp_path / "gone"}
    page = Page(render(replace(sample, steps=(replace(sample.steps[0], pages=pages),))))
    assert [attributes for tag, attributes in page.tags if tag == "iframe"] == [
        {"title": "card", "sandbox": None, "srcdoc": EVIL}
    ]
    assert "script" not in {tag for tag, _ in page.tags}
    assert EVIL in page.text  # Markdown, as it is written
    assert "The page gone.html can't be shown" in page.text


def test_few_metrics_lead_and_the_others_are_folded_by_group(tmp_path: Path) -> None:
    sample = samples.run(tmp_path)
    metrics = {"validation_loss": 2.5, "learning_rate": 0.1, "sent_bytes_per_step": 1024.0}
    text = Page(render(replace(sample, steps=(replace(sample.steps[1], inputs=(), metrics=metrics),)))).text
    assert "2 more metrics" in text
    assert (
        text.index("validation loss2.5") < text.index("optimizerlearning rate0.1") < text.index("sent per step1.0 KiB")
    )


def test_a_step_shows_what_its_artifact_states_of_itself(tmp_path: Path) -> None:
    sample = samples.run(tmp_path)
    facts = {
        "parameters": 165_760,
        "active parameters": 99_104,
        "experts per layer": [0, 4],
        "size": 3,
        "made": {"by": 1},
    }
    text = Page(render(replace(sample, steps=(samples.step("model", facts=facts),)))).text
    for wanted in ("parameters 165,760", "active parameters 99,104", "experts per layer 0/4", "made:\n  by: 1"):
        assert wanted in text
    assert "size 3" not in text  # the configuration says so


def test_a_figure_can_be_enlarged_without_a_script(tmp_path: Path) -> None:
    page = Page(render(samples.run(tmp_path)))
    assert {"place-pretrain-loss", "figure-pretrain-loss"} <= set(page.ids())
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert {"#place-pretrain-loss", "#figure-pretrain-loss"} <= set(links)


def test_the_style_of_figures_is_one_that_matplotlib_reads() -> None:
    import matplotlib

    found = matplotlib.rc_params_from_file(FIGURE_STYLE, fail_on_error=True, use_default_template=False)
    assert found["axes.spines.top"] is False


def test_writing_replaces_the_page_whole(tmp_path: Path) -> None:
    path = write(samples.run(tmp_path), tmp_path / "runs" / "report.html")
    write(samples.run(tmp_path, state="failed"), path)
    assert "demo: failed" in path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


# -- the graph ----------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    """Acyclic graphs, in an order that can run."""
    count = draw(st.integers(0, 14))
    return {
        f"s{index}": tuple(f"s{source}" for source in sorted(draw(st.sets(st.integers(0, index - 1), max_size=4))))
        if index
        else ()
        for index in range(count)
    }


@given(graphs())
def test_steps_are_drawn_below_their_inputs_and_nothing_overlaps(inputs: dict[str, tuple[str, ...]]) -> None:
    boxes, ways = layout(inputs)
    layers = layers_of(inputs)
    assert set(layers) == set(inputs) <= set(boxes)
    for name, sources in inputs.items():
        assert all(boxes[source].bottom < boxes[name].y for source in sources)
    assert sorted((way[0], way[-1]) for way in ways) == sorted((s, name) for name in inputs for s in inputs[name])
    assert all(
        below.y - above.y == boxes[way[1]].y - boxes[way[0]].y > BOX_HEIGHT
        for way in ways
        for above, below in zip([boxes[n] for n in way], [boxes[n] for n in way[1:]], strict=False)
    )
    placed = sorted(boxes.values(), key=lambda box: (box.y, box.x))
    for left, right in pairwise(placed):
        assert left.y < right.y or left.x + left.width + GAP <= right.x + 1e-6


@given(graphs())
def test_the_drawing_is_well_formed_and_names_every_step(inputs: dict[str, tuple[str, ...]]) -> None:
    steps = [samples.step(name, sources) for name, sources in inputs.items()]
    drawing = ElementTree.fromstring(graph_svg(steps))
    space = "{http://www.w3.org/2000/svg}"
    names = [text.text for text in drawing.iter(f"{space}text") if text.get("class") == "name"]
    assert sorted(names, key=str) == sorted(inputs)
    edges = [path for path in drawing.iter(f"{space}path") if path.get("class") == "edge"]
    assert len(edges) == sum(map(len, inputs.values()))


def test_a_huge_graph_is_counted_rather_than_drawn() -> None:
    steps = [samples.step(f"s{index}") for index in range(MOST_STEPS + 1)]
    assert f"{MOST_STEPS + 1} steps" in graph_svg(steps)


# -- legible numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (12.34, "12.3 s"), (59.97, "1 min 00 s"), (125, "2 min 05 s"), (3725, "1 h 02 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.12749, "3.127"), (14_121_332, "14,121,332"), (21_320.7, "21,321"), (2.1e-7, "2.1e-07"), (float("nan"), "nan")],
)
def test_numbers(value: float, text: str) -> None:
    assert formatting.number(value) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("memory_process_bytes", 687_960_064.0, "656.1 MiB"),
        ("sent_bytes_per_step", 10_267_824.0, "9.8 MiB"),
        ("bytes_after", 0.0, "0 B"),
        ("bytes_per_token", 3.7551, "3.755"),
        ("bits_per_byte", 2.0, "2"),
        ("lost_bytes", float("nan"), "nan"),
    ],
)
def test_metrics_that_count_bytes_have_a_unit(name: str, value: float, text: str) -> None:
    assert formatting.metric(name, value) == text


@pytest.mark.parametrize(
    ("name", "value", "label", "text"),
    [
        ("memory_process_peak_bytes", 687_960_064.0, "memory process peak", "656.1 MiB"),
        ("sent_bytes_per_step", 10_267_824.0, "sent per step", "9.8 MiB"),
        ("bytes_after", 1024.0, "size after", "1.0 KiB"),
        ("bytes_per_token", 3.7551, "bytes per token", "3.755"),
        ("xz_bits_per_byte", 2.0, "xz bits per byte", "2"),
        ("time_to_first_token_ms", 21.08, "time to first token", "21.08 ms"),
        ("seconds_per_step", 0.0585, "time per step", "58.5 ms"),
        ("seconds_communication", 75.0, "communication time", "1 min 15 s"),
        ("evaluated_kilobytes", 6.0, "evaluated", "6 kB"),
        ("model_flops_utilisation", 0.0327, "model flops utilisation", "3.3%"),
        ("validation_loss/language/python", 2.5, "python", "2.5"),
        ("lost_bytes", float("nan"), "lost bytes", "nan"),
        ("seconds", 3.0, "seconds", "3"),
    ],
)
def test_a_unit_is_said_once(name: str, value: float, label: str, text: str) -> None:
    assert formatting.quantity(name, value) == (label, text)


@pytest.mark.parametrize(("value", "text"), [(950, "950"), (45_230, "45.2k"), (14_121_332, "14.1M"), (2e12, "2.0T")])
def test_brief_numbers(value: float, text: str) -> None:
    assert formatting.brief(value) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")])
def test_sizes(count: int, text: str) -> None:
    assert formatting.size(count) == text


# -- a browser ----------------------------------------------------------------------------------------------------


def browse(page: Path, directory: Path) -> tuple[str, str, set[str]]:
    """A page in headless Chromium: its DOM, the messages on the console, and the addresses that it requested."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium here")
    log = directory / "net.json"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync", "--no-first-run"]
    flags += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={directory / 'profile'}",
    ]
    flags += ["--disable-features=NetworkTimeServiceQuerying", "--enable-logging=stderr", f"--log-net-log={log}"]
    command = [browser, *flags, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    asked = set(re.findall(r'"url":"((?:https?|wss?|ftp)://[^"]*)"', log.read_text()))
    own = {url for url in asked if re.match(r"https?://[\w.-]*\.(google|googleapis|gvt1)\.com/", url)}  # the browser's
    said = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, said, asked - own


def test_a_browser_shows_it_without_an_error_or_a_request(tmp_path: Path) -> None:
    document, said, asked = browse(write(samples.run(tmp_path), tmp_path / "report.html"), tmp_path)
    assert said == ""
    assert asked == set()
    page = Page(document[document.index("<html") :])
    assert [tag for tag, _ in page.tags].count("h3") == 4
    assert "hello <world>" in page.text


def test_a_browser_would_report_an_error_and_a_request(tmp_path: Path) -> None:
    """The test above can fail: on a page with a request and an error, the same check finds both."""
    page = tmp_path / "bad.html"
    page.write_text("<img src=http://127.0.0.1:9/x.png><script>console.error('oh')</script>")
    _, said, asked = browse(page, tmp_path)
    assert "oh" in said
    assert asked == {"http://127.0.0.1:9/x.png"}
