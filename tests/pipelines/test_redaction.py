"""What of a configuration is shown: references instead of values, no secret, and no credentials in addresses."""

from __future__ import annotations

import pytest

from pipelines import redaction
from pipelines.redaction import is_secret, redacted, remember, shown_config, shown_override, shown_values


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_hidden", {})


@pytest.mark.parametrize(
    "key",
    [
        "store.options.secret",
        "store.options.key",
        "store.options.client_kwargs.aws_session_token",
        "store.signing_key",
        "steps.corpus.reader.storage_options.account-key",
        "steps.x.password",
        "steps.x.credentials.name",
    ],
)
def test_keys_of_secrets(key: str) -> None:
    assert is_secret(key)


@pytest.mark.parametrize(
    "key",
    ["steps.tokens.tokenizer", "steps.x.max_tokens", "steps.x.eos_token", "steps.x.key", "store.options.endpoint_url"],
)
def test_keys_of_other_values(key: str) -> None:
    assert not is_secret(key)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("store.options.secret=abc", "store.options.secret=***"),
        ("++store.options.secret='a b'", "++store.options.secret=***"),
        ("store.options.secret=${oc.env:MINE}", "store.options.secret=${oc.env:MINE}"),
        ("store.options.secret=${oc.env:MINE,abc}", "store.options.secret=***"),
        ("store.options.secret=null", "store.options.secret=null"),
        ("store.options={anon: false, secret: abc}", "store.options=***"),
        ("store.root=s3://K:S@bucket", "store.root=s3://***@bucket"),
        ("steps.a.text={key: abc}", "steps.a.text={key: abc}"),
        ("~steps.a", "~steps.a"),
        ("from=[a,b]", "from=[a,b]"),
    ],
)
def test_overrides(override: str, expected: str) -> None:
    assert shown_override(override) == expected
    assert shown_override(expected) == expected


def test_a_configuration() -> None:
    shown = shown_config(
        {
            "store": {"root": "s3://k:s@b", "options": {"secret": "abc", "key": "${oc.env:K}", "anon": False, "n": 3}},
            "steps": {"a": {"text": "${oc.env:T}", "paths": ["https://h/a?sig=abc"]}},
        }
    )
    assert shown["store"]["root"] == "s3://***@b"
    assert shown["store"]["options"] == {"secret": "***", "key": "${oc.env:K}", "anon": False, "n": 3}
    assert shown["steps"]["a"] == {"text": "${oc.env:T}", "paths": ["https://h/a?sig=***"]}


def test_checked_values_take_what_is_shown_of_the_fields_they_were_made_from() -> None:
    values = {"seed": 7, "paths": ["x", "y"], "inner": {"password": 5, "size": 3}, "default": 1}
    shown = {"seed": "${oc.env:SEED}", "paths": "${oc.env:PATHS}", "inner": {"password": "***", "size": 3}}
    expected = {"seed": "${oc.env:SEED}", "paths": "${oc.env:PATHS}", "inner": {"password": "***", "size": 3}}
    assert shown_values(values, shown) == {**expected, "default": 1}
    marked = shown_values(values, shown, marked=True)
    other = shown_values({**values, "seed": 8}, shown, marked=True)
    assert marked["seed"].startswith("${oc.env:SEED} (sha256 ")
    assert marked["seed"] != other["seed"]
    assert (marked["paths"], marked["default"]) == (other["paths"], 1)


def test_texts_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PART", "environment-part")
    remember(
        {
            "store": {"options": {"secret": "hunter22"}, "root": "a-place-of-mine"},
            "steps": {"a": {"t": "environment-part!"}},
        },
        {
            "store": {"options": {"secret": "***"}, "root": "${oc.env:ROOT}"},
            "steps": {"a": {"t": "${oc.env:PART}!"}},
        },
    )
    assert redacted("hunter22, a-place-of-mine") == "***, a-place-of-mine"
    remember({"steps": {"a": {"t": "a-default"}}}, {"steps": {"a": {"t": "${oc.env:NOT_SET,a-default}"}}})
    assert redacted("a-default") == "a-default"
    assert redacted("environment-part! environment-part") == "${oc.env:PART}! ${oc.env:PART}"
    assert redacted("at http://u:p@h") == "at http://***@h"
