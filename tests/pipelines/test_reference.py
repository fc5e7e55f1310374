"""The tables of the reference page of the stages."""

from __future__ import annotations

from pipelines.fields import Field
from pipelines.reference import _tables


def test_a_required_field_and_a_type_with_a_name_in_backquotes() -> None:
    field = Field("rules", "a list, each rule, by `rule`", "", "in | order", False)
    assert _tables([field]).splitlines()[-1] == "| `rules` | `a list, each rule, by rule` | required | in \\| order |"
