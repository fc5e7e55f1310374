"""Keys of a verb of ours, of which Hydra hears nothing."""

from __future__ import annotations

import pytest

from pipelines import own_keys
from pipelines.errors import BloomlineError


def test_a_verbs_own_keys_are_separated_from_overrides() -> None:
    given = ["older=30d", "store.root=here", "steps.evaluate.limit=3"]
    assert own_keys.split("artifacts", given) == ({"older": "30d"}, given[1:])
    assert own_keys.split("run", given) == ({}, given)


@pytest.mark.parametrize(
    ("verb", "override", "meant"),
    [
        ("artifacts", "older_than=30d", "older=30d"),
        ("runs", "limt=3", "limit=3"),
        ("logs", "ranks=1", "rank=1"),
    ],
)
def test_a_key_that_is_almost_one_of_the_verbs_own_is_refused(verb: str, override: str, meant: str) -> None:
    with pytest.raises(BloomlineError, match=rf"{verb}: \w+: no such key. Did you mean {meant}\?"):
        own_keys.split(verb, [override])


def test_a_key_of_the_configuration_is_never_taken_for_a_verbs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(own_keys.OWN_KEYS, "runs", ("stores",))
    assert own_keys.split("runs", ["store=local"]) == ({}, ["store=local"])
