"""For any input, the server answers with a status below 500, or not at all, and keeps running."""

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.serving.http import application
from tests.stages.serving.support import scripted_service, serving

FIELDS = [
    "model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "n", "stop", "stream", "stream_options",
    "echo", "logprobs", "seed", "user", "best_of", "frequency_penalty", "presence_penalty", "logit_bias", "suffix",
]  # fmt: skip

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.integers(0, 30)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
# Likely values in addition to arbitrary ones, so that many requests get through to the engine.
likely = {
    "prompt": st.text(max_size=40)
    | st.lists(st.integers(0, 400), max_size=80)
    | st.lists(st.text(max_size=9), max_size=5),
    "model": st.sampled_from(["tiny", "other", None]),
    "max_tokens": st.integers(0, 70),
    "n": st.integers(1, 9),
    "stream": st.booleans(),
    "temperature": st.floats(0, 100) | st.sampled_from([5e-324, 0]),
    "top_p": st.floats(0, 1),
    "stop": st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=3),
    "logprobs": st.integers(0, 20),
}
bodies = st.fixed_dictionaries(
    {"prompt": likely["prompt"] | values},
    optional={name: likely.get(name, st.none()) | values for name in FIELDS if name != "prompt"},
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    service, batch = scripted_service(max_waiting=8, max_body_bytes=10_000, body_timeout_s=2.0, ending=True)
    with serving(application(service)) as url:
        yield url
        assert batch.sequences == {}


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


def alive(client: httpx.Client) -> bool:
    response = client.post("/v1/completions", json={"prompt": "hello", "max_tokens": 2})
    return response.status_code == 200 and client.get("/health").status_code == 200


@settings(max_examples=150)
@given(body=bodies)
def test_any_json(client: httpx.Client, body: dict[str, Any]) -> None:
    response = client.post("/v1/completions", content=json.dumps(body), headers={"content-type": "application/json"})
    assert response.status_code < 500, (body, response.text)
    if response.status_code != 200:
        assert response.json()["error"]["message"]
    elif not body.get("stream"):
        assert len(response.json()["choices"]) >= 1
    else:
        assert response.text.endswith("data: [DONE]\n\n")
        assert "server_error" not in response.text


@settings(max_examples=60)
@given(content=st.binary(max_size=300), valid=st.booleans())
def test_any_bytes_as_a_body(client: httpx.Client, content: bytes, valid: bool) -> None:
    if valid:
        content = b'{"prompt": "' + content + b'"}'
    response = client.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    assert response.status_code < 500


HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
STREAM = b'{"prompt": "hello", "max_tokens": 50, "stream": true}'
whole = HEAD + b"content-length: %d\r\n\r\n" % len(STREAM) + STREAM
raw = st.one_of(
    st.binary(max_size=200),
    st.integers(0, len(whole)).map(lambda cut: whole[:cut]),
    st.tuples(st.integers(0, len(whole) - 1), st.binary(max_size=5)).map(
        lambda at: whole[: at[0]] + at[1] + whole[at[0] :]
    ),
    st.binary(max_size=60).map(lambda junk: HEAD + b"transfer-encoding: chunked\r\n\r\n" + junk),
    st.sampled_from([b"-1", b"abc", b"9" * 30, b"0x10", b"\xb2"]).map(
        lambda length: HEAD + b"content-length: " + length + b"\r\n\r\n" + STREAM
    ),
)


@settings(max_examples=120)
@given(data=raw, listen=st.booleans())
def test_any_bytes_on_the_wire_and_leaving_at_any_moment(
    url: str, client: httpx.Client, data: bytes, listen: bool
) -> None:
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(data)
        if listen:
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(4096)
            assert not answer.startswith(b"HTTP/1.1 5"), (data, answer)
    assert alive(client)
