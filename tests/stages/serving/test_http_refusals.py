"""Requests that are not valid: each is refused with its reason, in the shape of OpenAI's errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.stages.serving.support import connect, request_bytes


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"model": "other"}, 404, "does not exist"),
        ({"prompt": "x " * 3000}, 400, "leaves no room for a completion in the model's context of 64 tokens"),
        ({"prompt": [5] * 64}, 400, "the prompt (64 tokens) leaves no room"),
        ({"prompt": [5] * 60, "max_tokens": 5}, 400, "the prompt (60 tokens) and max_tokens (5) exceed the model's"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, 400, "leave it out or set it to false"),
        ({"max_tokens": 65}, 400, "exceed the model's context of 64 tokens"),
        ({"prompt": [10**6]}, 400, "token 1000000 does not exist"),
        ({"prompt": [-1]}, 400, "expected a text"),
        ({"prompt": [True]}, 400, "expected a text"),
        ({"prompt": []}, 400, "expected a text"),
        ({"prompt": [[]]}, 400, "expected a text"),
        ({"prompt": ["a", 1]}, 400, "expected a text"),
        ({"prompt": None}, 400, "prompt: Field required"),
        ({"prompt": "a\ud800"}, 400, "lone surrogate"),
        ({"stop": "\ud800"}, 400, "lone surrogate"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": "1"}, 400, "temperature"),
        ({"temperature": float("nan")}, 400, "NaN is not a JSON number"),
        ({"top_p": float("inf")}, 400, "Infinity is not a JSON number"),
        ({"top_p": 0}, 400, "top_p"),
        ({"max_tokens": 1.5}, 400, "max_tokens"),
        ({"max_tokens": True}, 400, "max_tokens"),
        ({"n": 0}, 400, "n: "),
        ({"n": 100}, 400, "send fewer"),
        ({"prompt": ["a"] * 69}, 400, "send fewer"),
        ({"logprobs": 21}, 400, "logprobs"),
        ({"seed": 2**63}, 400, "seed"),
        ({"stop": ""}, 400, "stop strings of 1 to"),
        ({"stop": ["a", 1]}, 400, "stop: expected at most"),
        ({"stop": ["a"] * 17}, 400, "at most 16 stop strings"),
        ({"stream": "yes"}, 400, "stream"),
        ({"stream_options": {}}, 400, "stream_options is accepted only"),
        ({"best_of": 3}, 400, "best_of"),
        ({"stream": True, "stream_options": {"include_usage": "yes"}}, 400, "stream_options.include_usage: "),
        (
            {"stream": True, "stream_options": {"usage": True}},
            400,
            "unknown parameter; the known ones are include",
        ),
        ({"presence_penalty": 0.5}, 400, "presence_penalty: not supported by this server: leave it out or set it to 0"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias: not supported by this server: leave it out or set it to {}"),
        ({"suffix": "b"}, 400, 'suffix: not supported by this server: leave it out or set it to ""'),
        ({"temprature": 0.5}, 400, "temprature: unknown parameter; the known ones are model, prompt, max_tokens"),
    ],
)
def test_the_answer_to_a_bad_request_says_what_is_wrong(
    client: httpx.Client, body: dict[str, Any], status: int, reason: str
) -> None:
    content = json.dumps({"prompt": "hello"} | body)
    response = client.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    assert (response.status_code, reason in response.json()["error"]["message"]) == (status, True), response.text
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"", 400, "not valid JSON"),
        (b"{", 400, "not valid JSON"),
        (b"[1]", 400, "must be a JSON object"),
        (b'{"prompt": "\xff"}', 400, "not valid UTF-8"),
        (b'{"prompt": ' + b"[" * 9000 + b"]" * 9000 + b"}", 400, ""),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, 400, ""),
        (b'{"max_tokens": ' + b"9" * 5000 + b"}", 400, ""),
        (b'{"prompt": "a", "temperature": 1e999}', 400, "temperature"),
        (b" " * 20_001, 413, "larger than 20000 bytes"),
    ],
)
def test_the_answer_to_an_invalid_body_says_why(client: httpx.Client, content: bytes, status: int, reason: str) -> None:
    response = client.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    assert (response.status_code, reason in response.json()["error"]["message"]) == (status, True), response.text


def test_wrong_paths_methods_and_types_answer_in_the_same_shape(client: httpx.Client) -> None:
    answers = {
        404: client.get("/v2/nothing"),
        405: client.get("/v1/completions"),
        415: client.post("/v1/completions", content=b"{}", headers={"content-type": "text/plain"}),
    }
    assert client.get("/v1/models/other").status_code == 404
    for status, response in answers.items():
        assert response.status_code == status
        assert response.json()["error"]["message"]
    assert answers[405].headers["allow"] == "POST"


def test_a_body_without_a_length_is_bounded_too(client: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 1000

    response = client.post("/v1/completions", content=endless(), headers={"content-type": "application/json"})
    assert response.status_code == 413


def test_a_body_that_never_comes_is_given_up(client: httpx.Client) -> None:
    with connect(client) as connection:
        connection.sendall(request_bytes({"prompt": "hello"}, length=1000))
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")
