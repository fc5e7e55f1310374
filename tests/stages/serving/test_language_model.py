"""The trial of a language model finds a server that breaks a promise, and computes its metrics from the timings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from stages.base import StageError
from stages.serving.client import Client
from stages.serving.http import application
from stages.serving.language_model import CompletionTrial, Timing, summary
from stages.serving.trial import Load
from tests.stages.serving.support import scripted_service, serving

TRIAL = CompletionTrial("tiny", "hello", max_tokens=6, temperature=0.7)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    service, _ = scripted_service()
    with serving(application(service)) as url:
        yield url


def test_an_honest_server_is_checked_and_measured(url: str) -> None:
    completion = TRIAL.check(Client(url))["completion"]
    assert completion.startswith("hello")
    assert len(completion) > len("hello")
    results = TRIAL.measure(Client(url), 4, 2, lambda done, total: None)
    assert results.metrics["concurrency"] == 2
    assert all(value > 0 for value in results.metrics.values())
    assert results.notes == ()  # the scripted model does not depend on the batch


class Broken(Client):
    """Changes one kind of response of a correct server."""

    def __init__(self, url: str, what: str) -> None:
        super().__init__(url)
        self.what = what

    def exchange(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        status, answer = super().exchange(method, path, body)
        if self.what == "health" and path == "/health":
            return 503, b"{}"
        if self.what == "models" and path == "/v1/models":
            return 200, b'{"data": [{"id": "other"}]}'
        if self.what == "accepts" and status == 404:
            return 200, b"{}"
        if self.what == "no json" and path == "/health":
            return 200, b"fine"
        return status, answer

    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        if self.what == "empty":
            return
        for event in super().events(path, body):
            if self.what == "stream" and event["choices"]:
                event["choices"][0]["text"] += "!"
            yield {"error": {"message": "out of memory"}} if self.what == "error" else event


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("health", "GET /health was answered with status 503"),
        ("no json", "the answer to GET /health is not JSON"),
        ("models", r"lists the models \['other'\], expected \['tiny'\]"),
        ("stream", "the streamed answer differs from the whole answer"),
        ("empty", "a streamed completion had no event"),
        ("error", "a streamed completion failed: out of memory"),
        ("accepts", "a model that does not exist was answered with status 200, expected 404"),
    ],
)
def test_a_broken_promise_is_found(url: str, what: str, message: str) -> None:
    with pytest.raises(StageError, match=message):
        TRIAL.check(Broken(url, what))


def test_a_server_that_is_gone_is_one_clear_error() -> None:
    with pytest.raises(StageError, match="the server does not answer GET /health"):
        TRIAL.check(Client("http://127.0.0.1:9"))


def test_metrics_are_those_of_the_timings() -> None:
    def timings(first: float, number: int) -> tuple[Timing, ...]:
        return tuple(Timing(1.0, (1 + first, 1 + first + 0.1, 1 + first + 0.4), 3, "abc") for _ in range(number))

    metrics = summary(Load(1, timings(0.2, 4), 2.0), Load(8, timings(0.5, 4), 1.0))
    expected = {
        "time_to_first_token_ms": 200,
        "time_to_first_token_p95_ms": 200,
        "time_per_output_token_ms": 200,
        "time_per_output_token_p95_ms": 200,
        "tokens_per_second": 6,
        "concurrency": 8,
        "concurrent_time_to_first_token_ms": 500,
        "concurrent_time_to_first_token_p95_ms": 500,
        "concurrent_tokens_per_second": 12,
        "requests_per_second": 4,
    }
    assert metrics == pytest.approx(expected)


def test_texts_that_differ_under_load_are_remarked(url: str) -> None:
    class Shifting(Client):
        number = 0

        def events(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
            yield from super().events(path, {**body, "seed": self._next()})

        def _next(self) -> int:
            Shifting.number += 1
            return Shifting.number

    results = TRIAL.measure(Shifting(url), 3, 1, lambda done, total: None)
    assert "differ between one client and several" in results.notes[0]
