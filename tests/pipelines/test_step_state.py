"""What is known of a step while a run goes: its attempts and its time."""

from __future__ import annotations

import pytest

from pipelines.store import Store
from tests.pipelines.demo import six_steps
from tests.pipelines.support import run
from tests.pipelines.test_runner import summary_of

pytestmark = pytest.mark.usefixtures("demo_stages")


def test_the_attempts_of_a_step_and_how_long_the_last_one_took(store: Store) -> None:
    steps = six_steps(e__fail="stage")
    steps["e"] |= {"retries": 1}
    summary, _, _ = run(store, steps)
    failed, done = summary_of(summary, "e"), summary_of(summary, "a")
    assert [attempt.state for attempt in failed.attempts] == ["failed", "failed"]
    assert failed.attempts[0].ended <= failed.attempts[1].began
    assert failed.seconds == failed.attempts[-1].seconds
    assert [attempt.state for attempt in done.attempts] == ["done"]
