from __future__ import annotations

import math

import pytest

from stages.model.perplexity import perplexity


def test_a_uniform_guess_has_the_perplexity_of_its_choices() -> None:
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert perplexity(5, base=2) == 32
    assert perplexity(0) == perplexity(0, base=2) == 1


@pytest.mark.parametrize("base", [2, math.e])
def test_a_value_too_large_for_a_float_is_infinite(base: float) -> None:
    assert perplexity(700, base=base) < math.inf
    assert perplexity(5000, base=base) == perplexity(math.inf, base=base) == math.inf
