"""The output in a terminal: tables that fit 80 columns, progress with and without a terminal, no control characters."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster import submitted_job
from cluster.base import Message
from pipelines import terminal
from pipelines.errors import ConfigError, Problem, show_error
from pipelines.terminal import Display, Gauge, PlanRow, plain_line, show_plan, show_result
from stages.base import StageError
from tests.pipelines import samples

REPOSITORY = Path(__file__).parents[2]


def paper(width: int = 80) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return terminal.console(file, width), file


def test_what_is_not_shown_in_a_terminal_has_120_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal.console(io.StringIO()).width == 120
    monkeypatch.setenv("COLUMNS", "200")
    assert terminal.console(io.StringIO()).width == 200


ROWS = [
    PlanRow("corpus", "corpus", "cached", "by run 20261122-101500-ab12", "/store/corpus/corpus-3f2a"),
    PlanRow("pretrain", "pretrain", "run", "learning_rate 0.0003 -> 0.001; made from tokens, which will run again"),
    PlanRow("moe", "moe", "blocked", "needs 8 GPUs for 8 ranks, the cluster has 4"),
    PlanRow("deploy", "deploy", "unselected", "not selected"),
]


def test_the_plan_says_what_and_why_in_80_columns() -> None:
    out, file = paper()
    show_plan(out, ROWS)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    whole = " ".join(file.getvalue().split())
    assert "pretrain pretrain run learning_rate 0.0003 -> 0.001; made from tokens, which will run again" in whole
    assert "moe moe blocked needs 8 GPUs for 8 ranks, the cluster has 4" in whole
    assert whole.endswith("Not selected: deploy")
    assert "/store" not in whole


def test_a_wide_terminal_shows_where() -> None:
    out, file = paper(160)
    show_plan(out, ROWS)
    assert "/store/corpus/corpus-3f2a" in file.getvalue()


def test_the_result_has_the_table_the_highlights_the_report_and_what_to_do_next(tmp_path: Path) -> None:
    out, file = paper()
    report = tmp_path / ("a" * 90) / "report.html"
    show_result(out, samples.run(tmp_path, notes=("spooled",)), report, ["bloomline ui", "bloomline serve"])
    text = file.getvalue()
    row = next(line for line in text.splitlines() if line.startswith("pretrain"))
    assert row.split("  ")[0] == "pretrain"
    for wanted in ("done", "1.5 s", "validation loss 2.5", "Checkpoint, 4.0 KiB"):
        assert wanted in row
    for wanted in ("hello <world>", "Note: spooled", "demo: done in 10.0 s", str(report), "  bloomline serve"):
        assert wanted in text, "a path stays whole, so that it can be copied"


def test_an_error_is_shown_whole(tmp_path: Path) -> None:
    out, file = paper()
    sample = samples.run(tmp_path, state="failed")
    failed = replace(sample.steps[1], state="failed", error="no memory.\nAsk for less: steps.pretrain.batch=4")
    show_result(out, replace(sample, steps=(sample.steps[0], failed)), None, [])
    assert "pretrain: no memory.\nAsk for less: steps.pretrain.batch=4" in file.getvalue()
    raised = replace(failed, frames="own/words.py:20 in clean\n    raise ValueError(text)")
    show_result(out, replace(sample, steps=(sample.steps[0], raised)), None, [])
    assert "batch=4\n  own/words.py:20 in clean\n      raise ValueError(text)\n" in file.getvalue()


def test_a_paragraph_is_broken_into_lines_on_a_terminal_only(tmp_path: Path) -> None:
    said = "better than the strongest baseline " * 5
    sample = samples.run(tmp_path, notes=("n " * 80,))
    judged = replace(sample, steps=(replace(sample.steps[0], highlights={"verdict": said}),))
    out, file = paper()
    show_result(out, judged, None, [])
    assert f"\n  {said}\n" in file.getvalue()
    assert f"\nNote: {'n ' * 80}" in file.getvalue()
    file = io.StringIO()
    show_result(Console(file=file, width=80, force_terminal=True, color_system=None), judged, None, [])
    lines = file.getvalue().split("verdict (corpus)\n")[1].split("\n\n")[0].splitlines()
    assert len(lines) > 2
    assert all(line.startswith("  ") and len(line) <= 80 for line in lines)


def test_the_report_of_a_submitted_job_is_on_the_head_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, file = paper(200)
    monkeypatch.setenv(submitted_job.JOB_CONFIG, "{}")
    show_result(out, samples.run(tmp_path), Path("/there/report.html"), [])
    assert "\nReport on the head node: /there/report.html\n" in file.getvalue()


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\x00\r\u202egnp.exe\u2066x\u2069\ud800\nNext:\n  forged"
UNSAFE = set(HOSTILE) & {*map(chr, (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)))} - {
    "\n"
}


def assert_harmless(printed: str) -> None:
    """Nothing in what was printed controls a terminal, and no line of a foreign text looks like one of ours."""
    printed.encode()
    assert not set(printed) & UNSAFE
    assert not [line for line in printed.splitlines() if line.startswith(("Next:", "  forged"))]


def test_no_text_of_a_run_controls_the_terminal(tmp_path: Path) -> None:
    out, file = paper(200)
    sample = samples.run(tmp_path)
    odd = replace(
        sample.steps[0], name=HOSTILE, headline=(HOSTILE, 1.0), highlights={HOSTILE: HOSTILE}, artifact=HOSTILE
    )
    show_result(out, replace(sample, steps=(odd,), pipeline=HOSTILE), Path(f"/{HOSTILE}"), [])
    assert file.getvalue().count("owned") >= 6
    show_plan(out, [PlanRow(HOSTILE, HOSTILE, "run", HOSTILE, HOSTILE)])
    assert_harmless(file.getvalue())


def test_what_is_said_of_a_running_step_does_not_control_the_terminal(tmp_path: Path) -> None:
    out, file = paper()
    display = Display(out, plain_interval_s=0)
    step = replace(samples.waiting(samples.run(tmp_path).steps[1]), reason=HOSTILE)
    display.step_started(step)
    display.step_message(Message("pretrain", "note", {"text": HOSTILE}))
    display.step_message(
        Message("pretrain", "progress", {"done": 1, "total": 2, "unit": HOSTILE, "info": {HOSTILE: HOSTILE}})
    )
    display.step_finished(replace(samples.run(tmp_path).steps[1], headline=(HOSTILE, 1.0)))
    assert file.getvalue().count("owned") == 6
    assert_harmless(file.getvalue().replace("\n  Next:", ""))


def test_errors_and_the_values_of_an_error_do_not_control_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = paper()
    sample = samples.run(tmp_path)
    failed = replace(sample.steps[0], error=HOSTILE)
    show_result(out, replace(sample, steps=(failed,), notes=(HOSTILE,)), None, [])
    show_error(StageError(HOSTILE))
    show_error(ConfigError([Problem(HOSTILE, HOSTILE, HOSTILE, HOSTILE)]))
    for printed in (file.getvalue(), capsys.readouterr().err):
        printed.encode()
        assert not set(printed) & UNSAFE
        assert "owned" in printed


def test_markup_and_escapes_in_a_run_are_shown_as_they_are(tmp_path: Path) -> None:
    out, file = paper()
    sample = samples.run(tmp_path)
    odd = replace(sample.steps[0], name="[red]a", highlights={"[b]": "\x1b[31mred\x07 [/nope]"}, error="[bold]\x1b]0;x")
    show_result(out, replace(sample, steps=(odd,)), None, [])
    assert "\x1b" not in file.getvalue()
    assert "�[31mred� [/nope]" in file.getvalue()
    assert "[red]a" in file.getvalue()


def test_without_a_terminal_progress_is_a_line_now_and_then(tmp_path: Path) -> None:
    out, file = paper()
    display = Display(out, plain_interval_s=3600)
    sample = samples.run(tmp_path)
    display.run_started(sample)
    display.step_started(samples.waiting(sample.steps[1]))
    for at in range(50):
        display.step_message(progress(at, 100, loss=2.5))
    display.step_message(Message("pretrain", "note", {"text": "saved a checkpoint"}))
    display.step_finished(sample.steps[1])
    display.run_finished(sample)
    lines = [line[9:] for line in file.getvalue().splitlines()]
    assert lines == [
        "pretrain  starts: no artifact yet",
        "pretrain  saved a checkpoint",
        "pretrain  done  1.5 s  validation loss 2.5",
    ]


def test_without_a_terminal_a_line_reports_the_progress_of_a_step(tmp_path: Path) -> None:
    out, file = paper()
    display = Display(out, plain_interval_s=0)
    display.step_started(samples.waiting(samples.run(tmp_path).steps[1]))
    display.step_message(progress(30, 100, loss=2.5))
    assert "pretrain  30/100 steps (30%), loss 2.5, 0.0 s so far" in file.getvalue()


def test_the_time_of_a_step_is_counted_from_the_beginning_of_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("pipelines.terminal.time.monotonic", lambda: now)
    out, file = paper()
    display = Display(out, plain_interval_s=0)
    display.step_started(samples.waiting(samples.run(tmp_path).steps[1]))
    now = 123.0  # until its process was there
    display.step_message(Message("pretrain", "started", {}))
    now = 125.0
    display.step_message(progress(30, 100))
    assert "30/100 steps (30%), 2.0 s so far" in file.getvalue()


def test_steps_that_were_not_selected_have_no_row(tmp_path: Path) -> None:
    out, file = paper()
    sample = samples.run(tmp_path)
    left = [replace(step, state="unselected") for step in sample.steps[2:]]
    show_result(out, replace(sample, steps=(*sample.steps[:2], *left)), None, [])
    lines = file.getvalue().splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["Step", "corpus", "pretrain"]
    assert lines[4] == "Not selected: quantize, deploy"


def progress(done: float, total: float, **info: Any) -> Message:
    return Message("pretrain", "progress", {"done": done, "total": total, "unit": "steps", "info": info})


def test_on_a_terminal_progress_is_redrawn_and_taken_away(tmp_path: Path) -> None:
    file = io.StringIO()
    out = Console(
        file=file, width=80, force_terminal=True, color_system=None, highlight=False, _environ={"TERM": "xterm"}
    )
    display = Display(out)
    sample = samples.run(tmp_path)
    display.run_started(sample)
    for step in sample.steps[:2]:
        display.step_started(samples.waiting(step))
    for at in range(1, 31):
        display.step_message(progress(at, 100, loss=2.5, rate=21_320.0))
    display._live.refresh()  # type: ignore[union-attr]
    shown = file.getvalue()
    assert "30/100 steps" in shown
    assert "left" in shown
    assert "loss 2.5, rate 21.3k" in shown
    assert "corpus" in shown
    display.close()
    assert display._live is None


def test_a_gauge_knows_the_time_left_from_the_speed_of_late() -> None:
    gauge = Gauge(began=0.0)
    for now in range(0, 101, 2):
        gauge.update(now, now if now < 50 else 50 + 4 * (now - 50), 350, "steps", {})
    assert gauge.seconds_left(100) == pytest.approx((350 - 250) / 4, rel=0.05)
    assert gauge.fraction == pytest.approx(250 / 350)
    assert plain_line(gauge, 100).startswith("250/350 steps (71%), 25.")
    gauge.update(102, 1, 10, "files", {})
    assert gauge.seconds_left(102) is None, "another phase has another speed"


def test_a_gauge_without_a_total_shows_the_time_taken() -> None:
    gauge = Gauge(began=0.0)
    gauge.update(5, 3 << 20, 0, "bytes", {"file": "a.py"})
    assert gauge.fraction is None
    assert plain_line(gauge, 7) == "3.0 MiB, file a.py, 7.0 s so far"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    out, file = paper()
    show_plan(out, ROWS)
    assert "\x1b[3" in file.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    out, file = paper()
    show_plan(out, ROWS)
    assert "\x1b[3" not in file.getvalue()


def test_importing_it_imports_no_rich() -> None:
    code = "import sys, pipelines.terminal; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
