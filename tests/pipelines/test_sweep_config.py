"""The configuration of sweeps."""

from __future__ import annotations

import pytest

from pipelines import config
from pipelines.errors import ConfigError
from pipelines.sweep_config import SweepConfig


def test_an_objective_is_a_metric_of_a_step() -> None:
    assert SweepConfig().metric is None
    assert SweepConfig(objective="steps.evaluate.loss/test").metric == ("evaluate", "loss/test")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sweep.objective=loss", "expected steps.STEP.METRIC, such as steps.evaluate.bits_per_byte"),
        ("sweep.objective=steps.evalute.loss", "expected the name of a step. Did you mean 'evaluate'?"),
        ("sweep.direction=down", "'minimize' or 'maximize'"),
        ("sweep.parallel=0", "a number greater than 0"),
        ("sweep.goal=x", "unknown field 'goal'"),
    ],
)
def test_what_is_wrong_with_it_is_said(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config.compose(["pipeline=debug", override])
    assert said in str(refused.value)
