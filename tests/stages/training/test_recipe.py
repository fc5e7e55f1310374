"""Recipes that are inconsistent are refused."""

from __future__ import annotations

import pytest

from stages.training.recipe import Recipe


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"global_batch_size": 10, "micro_batch_size": 4}, "multiple of micro_batch_size"),
        ({"steps": 5, "warmup_steps": 5}, "warmup_steps 5 must be less than"),
        ({"steps": 9, "warmup_steps": 5, "decay_steps": 5}, "together exceed"),
    ],
)
def test_an_inconsistent_recipe_is_refused(fields: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Recipe(**fields)
