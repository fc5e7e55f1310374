"""The tables of the reference page of the stages."""

from __future__ import annotations

import pytest

from pipelines.fields import Field, summary
from pipelines.graph import produces
from pipelines.reference import _tables
from stages import registry


def test_a_required_field_and_a_type_with_a_name_in_backquotes() -> None:
    field = Field("rules", "a list, each rule, by `rule`", "", "in | order", False)
    assert _tables([field]).splitlines()[-1] == "| `rules` | `a list, each rule, by rule` | required | in \\| order |"


@pytest.mark.parametrize("name", registry.STAGES.builtins)
def test_a_summary_begins_with_a_verb_and_does_not_repeat_what_the_stage_makes(name: str) -> None:
    stage = registry.STAGES.load(name)
    verb, *others = summary(stage).rstrip(".").split()
    assert verb.endswith("s")
    assert {"produces", "Produces", "leaves", "Leaves", produces(stage).__name__}.isdisjoint(others)
