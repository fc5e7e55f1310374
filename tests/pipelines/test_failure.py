"""Of a traceback, a person sees the frames of the code that matters, whoever started it."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from cluster.outcome_capture import capture_outcome
from pipelines import failure
from pipelines.failure import last_frames, logs_command
from tests.pipelines import samples

ON_A_NODE = """Traceback (most recent call last):
  File "/home/ray/anaconda3/lib/python3.11/site-packages/ray/_private/worker.py", line 9, in main
    worker.run()
  File "/tmp/ray/_ray_pkg_12/cluster/outcome_capture.py", line 31, in capture_outcome
    return Outcome(step, "done", result=function(*arguments))
                                        ^^^^^^^^^^^^^^^^^^^^
  File "/tmp/ray/_ray_pkg_12/stages/training/loop.py", line 120, in run
    self.step(batch)
  File "/tmp/ray/_ray_pkg_12/own/words.py", line 20, in clean
    return json.loads(text)
           ^^^^^^^^^^^^^^^^
  File "/home/ray/anaconda3/lib/python3.11/json/__init__.py", line 346, in loads
    return _default_decoder.decode(s)
  File "/home/ray/anaconda3/lib/python3.11/json/decoder.py", line 337, in decode
    obj, end = self.raw_decode(s, idx=_w(s, 0).end())
json.decoder.JSONDecodeError: Expecting value
"""


def test_frames_of_the_user_and_of_stages_are_shown_and_where_it_was_raised() -> None:
    assert last_frames(ON_A_NODE).splitlines() == [
        "stages/training/loop.py:120 in run",
        "    self.step(batch)",
        "_ray_pkg_12/own/words.py:20 in clean",
        "    return json.loads(text)",
        "python3.11/json/decoder.py:337 in decode",
        "    obj, end = self.raw_decode(s, idx=_w(s, 0).end())",
    ]


def test_of_chained_exceptions_the_last_is_shown() -> None:
    def convert() -> None:
        try:
            int("x")
        except ValueError as error:
            raise KeyError("y") from error

    outcome = capture_outcome("step", convert)
    frames = last_frames(outcome.trace).splitlines()
    assert [line.split(":")[0] for line in frames[::2]] == ["tests/pipelines/test_failure.py"]
    assert frames[1] == '    raise KeyError("y") from error'


def test_of_a_deep_recursion_the_last_frames_are_shown() -> None:
    def deep(left: int) -> None:
        if left == 0:
            raise ValueError("too deep")
        deep(left - 1)

    try:
        deep(50)
    except ValueError:
        assert len(last_frames(traceback.format_exc()).splitlines()) <= 2 * failure.MOST


@pytest.mark.parametrize(
    ("trace", "frames"),
    [
        ("", ""),
        ("no traceback at all\n\x00", ""),
        (
            'Traceback (most recent call last):\n  File "a.py", line 1\n    x = (\n        ^\nSyntaxError: bad',
            "a.py:1 in",
        ),
        ('  File "<string>", line 3, in f', "<string>:3 in f"),
        ('  File "x.py", line 99999999999999999999, in f', "x.py:99999999999999999999 in f"),
    ],
)
def test_whatever_arrives_raises_nothing(trace: str, frames: str) -> None:
    assert last_frames(trace).startswith(frames)


def test_the_modules_that_are_left_out_exist() -> None:
    root = Path(failure.__file__).parents[1]
    assert [name for name in failure.PLUMBING if not (root / name).is_file()] == []


def test_the_command_names_the_run_the_step_and_the_store(tmp_path: Path) -> None:
    run = samples.run(tmp_path, places=("store.root=my store",))
    assert logs_command(run, run.steps[1]).endswith("logs run-1 pretrain 'store.root=my store'")
