"""The recipes of BLOOM's sizes equal those that BigScience published."""

from __future__ import annotations

import pytest

from pipelines.config import compose
from stages.training.pretrain import Pretrain
from stages.training.ramp import BatchSizeRamp
from stages.training.schedule import learning_rate

WARMUP, DECAYED, PLANNED, RAMPED = 183_105, 200_000_000, 220_000_000, 9_765_625  # samples, of every run

# bigscience, train/tr11-176B-ml: batch size, peak and last learning rate, the ramp's increment, micro-batch, recompute.
PUBLISHED = {
    "bloom_560m": (256, 3.0e-4, 1e-5, 16, 1, "none"),
    "bloom_1b1": (256, 2.5e-4, 1e-5, 16, 1, "none"),
    "bloom_1b7": (512, 2.0e-4, 1e-5, 16, 4, "full"),
    "bloom_3b": (512, 1.6e-4, 1e-5, 32, 1, "full"),
    "bloom_7b1": (512, 1.2e-4, 1e-5, 32, 1, "full"),
    "bloom_176b": (2048, 6.0e-5, 6e-6, 16, 2, "full"),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_recipes_are_the_published_ones(size: str) -> None:
    chosen = [f"pretrain@steps.pretrain={size}", f"model@steps.pretrain.model={size}"]
    stage = compose(["pipeline=debug", *chosen]).graph.steps["pretrain"].stage
    assert isinstance(stage, Pretrain)
    batch, peak, last, increment, micro_batch, recompute = PUBLISHED[size]
    assert (stage.global_batch_size, stage.micro_batch_size, stage.recompute) == (batch, micro_batch, recompute)
    assert stage.batch_size_ramp == BatchSizeRamp(start=192, increment=increment, samples=RAMPED)
    assert (stage.sequence_length, stage.schedule, stage.seed) == (2048, "cosine", 42)
    assert (stage.beta1, stage.beta2, stage.epsilon) == (0.9, 0.95, 1e-8)
    assert (stage.weight_decay, stage.gradient_clipping) == (0.1, 1.0)
    taken = stage.batch_size_ramp.taken(stage.steps, batch)
    assert PLANNED <= taken < PLANNED + batch
    # Over samples, as the runs were: the peak after the warm-up, the last rate from the end of the decay on.
    assert learning_rate(stage, 0, WARMUP + batch) == pytest.approx(peak, rel=1e-4)
    assert learning_rate(stage, 0, WARMUP // 2) == pytest.approx(peak / 2, rel=0.01)
    middle = (WARMUP + DECAYED) // 2
    assert learning_rate(stage, 0, middle) == pytest.approx((peak + last) / 2, rel=1e-3)
    assert learning_rate(stage, 0, DECAYED + batch) == pytest.approx(last, rel=1e-6)
    assert learning_rate(stage, stage.steps - 1, taken - batch) == pytest.approx(last, rel=1e-6)
