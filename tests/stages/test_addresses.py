"""Addresses are shown without credentials, and stay readable otherwise."""

from __future__ import annotations

import pytest

from stages.addresses import redact_url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://KEY:SECRET@bucket/prefix", "s3://***@bucket/prefix"),
        ("https://TOKEN@host/x", "https://***@host/x"),
        ("http://user:p@ss@host:8265", "http://***@host:8265"),
        ("s3://KEY:SE/CR+ET@bucket", "s3://***@bucket"),
        ("zip://a.txt::https://u:p@host/b.zip", "zip://a.txt::https://***@host/b.zip"),
        ("can't open 'ftp://u:p@host/f': refused", "can't open 'ftp://***@host/f': refused"),
        ("https://h/f?X-Amz-Signature=abc&X-Amz-Expires=60", "https://h/f?X-Amz-Signature=***&X-Amz-Expires=60"),
        ("with url: /f?sv=1&sig=a%2Fb (caused by)", "with url: /f?sv=1&sig=*** (caused by)"),
        ("https://h/f?access_token=abc#part", "https://h/f?access_token=***#part"),
    ],
)
def test_credentials_are_hidden(text: str, expected: str) -> None:
    assert redact_url(text) == expected
    assert redact_url(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a@b",
        "http://host:8265/path@1",
        "abfs://container@account.dfs.core.windows.net/x",
        "zip://*.jsonl::/data/a@b.zip",
        "steps.pretrain.max_tokens=8 and key=value",
        "https://h/f?page=2&max_tokens=8",
        "mail somebody@example.org",
    ],
)
def test_other_texts_are_unchanged(text: str) -> None:
    assert redact_url(text) == text
