"""The learning rate by step and by samples."""

from __future__ import annotations

import math

import pytest

from stages.training.ramp import BatchSizeRamp
from stages.training.recipe import Recipe
from stages.training.schedule import learning_rate


@pytest.mark.parametrize("schedule", ["cosine", "linear", "warmup_stable_decay", "constant"])
def test_warm_up_reaches_the_peak_once(schedule: str) -> None:
    recipe = Recipe(steps=100, warmup_steps=10, learning_rate=2.0, schedule=schedule)
    rates = [learning_rate(recipe, step, 0) for step in range(100)]
    assert rates[:11] == pytest.approx([2.0 * (step + 1) / 11 for step in range(11)])
    assert max(rates) == rates[10] == 2.0


def test_decays_and_their_ends() -> None:
    fields = {"steps": 101, "learning_rate": 1.0, "final_learning_rate_fraction": 0.2}
    cosine, linear = (Recipe(**fields, schedule=name) for name in ("cosine", "linear"))
    assert learning_rate(cosine, 100, 0) == pytest.approx(0.2)
    assert learning_rate(cosine, 50, 0) == pytest.approx(0.6)
    assert learning_rate(cosine, 25, 0) == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert learning_rate(linear, 25, 0) == pytest.approx(0.8)
    stable = Recipe(**fields, schedule="warmup_stable_decay", decay_steps=11)
    assert [learning_rate(stable, step, 0) for step in (50, 90, 95, 100)] == pytest.approx([1.0, 1.0, 0.6, 0.2])
    short = Recipe(**fields, schedule="cosine", decay_steps=51)
    assert [learning_rate(short, step, 0) for step in (50, 51, 100)] == pytest.approx([0.2] * 3)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "warmup_stable_decay"])
def test_a_ramped_batch_is_warmed_up_and_decayed_over_samples(schedule: str) -> None:
    """After the same number of samples, the learning rate equals that of a run without a ramp."""
    fields = {"global_batch_size": 64, "micro_batch_size": 4, "warmup_steps": 10, "schedule": schedule}
    ramp = BatchSizeRamp(start=16, increment=16, samples=996)
    ramped = Recipe(**fields, steps=200, batch_size_ramp=ramp, decay_steps=50)
    samples = [0]
    for _ in range(200):
        samples.append(samples[-1] + ramped.batch_size(samples[-1]))
    assert ramp.taken(200, 64) == samples[-1]
    whole = samples[-1] // 64
    assert 64 * whole == samples[-1]  # so that there is such a run
    full = Recipe(**fields, steps=whole, decay_steps=50)
    rates = [learning_rate(ramped, step, taken) for step, taken in enumerate(samples[:-1])]
    for taken, rate in zip(samples[:-1], rates, strict=True):
        if taken % 64 == 0 and taken >= 640:
            assert rate == pytest.approx(learning_rate(full, taken // 64, taken), rel=1e-9)
    assert rates[:3] == pytest.approx([1e-3 * taken / 64 / 11 for taken in (16, 32, 48)])
    assert rates[-1] == pytest.approx(1e-4)
    with pytest.raises(ValueError, match="whose samples are those of"):
        Recipe(**fields, steps=15, batch_size_ramp=ramp)
