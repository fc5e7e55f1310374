"""Licence expressions mean what their operators say."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.statistics.spdx import accepts

expressions = st.recursive(
    st.sampled_from(["A", "B", "C"]).map(lambda name: (name, lambda accepted: name in accepted)),
    lambda inner: st.tuples(st.sampled_from(["AND", "OR"]), inner, inner).map(
        lambda parts: (
            f"({parts[1][0]} {parts[0]} {parts[2][0]})",
            lambda accepted: (
                (parts[1][1](accepted) and parts[2][1](accepted))
                if parts[0] == "AND"
                else (parts[1][1](accepted) or parts[2][1](accepted))
            ),
        )
    ),
    max_leaves=6,
)


@given(expressions, st.sets(st.sampled_from(["A", "B", "C"])))
def test_expressions_are_boolean(expression: tuple[Any, ...], accepted: set[str]) -> None:
    text, meaning = expression
    assert accepts(text, lambda name: name.upper() in accepted) == meaning(accepted)
