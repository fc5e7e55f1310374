"""Trying a served model over real HTTP: does it answer rightly, and how fast?

Standard library only: what it measures is the server and not the client, and it runs wherever a stage runs.
"""

from __future__ import annotations

import http.client
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from stages.base import StageError

TIMEOUT_S = 120.0

# Requests that no server may take, each with the statuses that it may be refused with.
BAD_REQUESTS: tuple[tuple[str, bytes, tuple[int, ...]], ...] = (
    ("a body that is not JSON", b"{", (400, 422)),
    ("a prompt of a wrong type", b'{"prompt": {"text": 1}}', (400, 422)),
    ("a temperature out of range", b'{"prompt": "a", "temperature": -1}', (400, 422)),
    ("a model that does not exist", b'{"prompt": "a", "model": "no such model"}', (404,)),
)


@dataclass(frozen=True)
class Timing:
    """One streamed completion: the moments (seconds) at which the request went out and each piece of text came."""

    sent: float
    pieces: tuple[float, ...]
    tokens: int
    text: str

    @property
    def first_token_s(self) -> float:
        return self.pieces[0] - self.sent

    @property
    def per_token_s(self) -> float:
        """Mean time from one token to the next."""
        return (self.pieces[-1] - self.pieces[0]) / max(1, self.tokens - 1)


class Client:
    """Requests to one server. Raises StageError for an answer that is not what was expected."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)

    def get(self, path: str) -> Any:
        status, body = self._exchange("GET", path)
        if status != 200:
            raise StageError(f"GET {path} of the served model answered {status}: {body[:500]!r}")
        return json.loads(body)

    def complete(self, body: Mapping[str, Any]) -> Any:
        status, answer = self._exchange("POST", "/v1/completions", json.dumps(dict(body)).encode())
        if status != 200:
            raise StageError(f"a completion by the served model answered {status}: {answer.decode()[:500]}")
        return json.loads(answer)

    def refused(self, body: bytes) -> int:
        """The status of the answer to a request that is wrong."""
        return self._exchange("POST", "/v1/completions", body)[0]

    def stream(self, body: Mapping[str, Any]) -> Timing:
        """One streamed completion, timed."""
        request = {**body, "stream": True, "stream_options": {"include_usage": True}}
        sent, pieces, text, tokens = time.perf_counter(), [], [], 0
        for event in self._events(json.dumps(request).encode()):
            if "error" in event:
                raise StageError(f"a stream of the served model broke off: {event['error'].get('message')}")
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
            for choice in event["choices"]:
                pieces.append(time.perf_counter())
                text.append(choice["text"])
        if not pieces:
            raise StageError("a stream of the served model held no event")
        return Timing(sent, tuple(pieces), tokens, "".join(text))

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._parts.hostname or "", self._parts.port, timeout=TIMEOUT_S)

    def _send(self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None) -> Any:
        headers = {"content-type": "application/json"} if body is not None else {}
        connection.request(method, self._parts.path + path, body, headers)
        return connection.getresponse()

    def _exchange(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = self._connect()
        try:
            response = self._send(connection, method, path, body)
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise StageError(f"the served model does not answer {method} {path}: {error!r}") from error
        finally:
            connection.close()

    def _events(self, body: bytes) -> Iterator[dict[str, Any]]:
        connection = self._connect()
        try:
            response = self._send(connection, "POST", "/v1/completions", body)
            if response.status != 200:
                raise StageError(f"a stream of the served model answered {response.status}: {response.read()[:500]!r}")
            for line in response:
                if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                    yield json.loads(line[6:])
        except (OSError, http.client.HTTPException) as error:
            raise StageError(f"a stream of the served model broke off: {error!r}") from error
        finally:
            connection.close()


def check(client: Client, model_name: str, body: Mapping[str, Any]) -> str:
    """Hold the server to its promises; the text that it completed. `body`: a seeded or greedy completion."""
    client.get("/health")
    names = [model["id"] for model in client.get("/v1/models")["data"]]
    if names != [model_name]:
        raise StageError(f"the server lists the models {names}, expected {[model_name]}")
    text: str = client.complete({**body, "model": model_name})["choices"][0]["text"]
    streamed = client.stream(body).text
    if streamed != text:
        raise StageError(f"the stream differs from the whole answer of the same request: {streamed!r} and {text!r}")
    for what, bad, allowed in BAD_REQUESTS:
        if (status := client.refused(bad)) not in allowed:
            raise StageError(f"{what} was answered with {status}, expected {' or '.join(map(str, allowed))}")
    client.get("/health")
    return text


@dataclass(frozen=True)
class Load:
    """Streamed completions sent by `concurrency` clients at once, and the whole time that they took."""

    concurrency: int
    timings: tuple[Timing, ...]
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return sum(timing.tokens for timing in self.timings) / self.seconds


def measure(client: Client, bodies: Sequence[Mapping[str, Any]], concurrency: int) -> Load:
    """Send every request, `concurrency` at a time."""
    started = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        timings = tuple(pool.map(client.stream, bodies))
    return Load(concurrency, timings, time.perf_counter() - started)


def percentile(values: Sequence[float], percent: int) -> float:
    """A percentile, 1 to 99, by linear interpolation."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def summary(alone: Load, together: Load) -> dict[str, float]:
    """The metrics of two loads: one client, and several at once. Milliseconds where the name says so."""
    first = [1000 * timing.first_token_s for timing in alone.timings]
    between = [1000 * timing.per_token_s for timing in alone.timings]
    first_together = [1000 * timing.first_token_s for timing in together.timings]
    return {
        "time_to_first_token_ms": percentile(first, 50),
        "time_to_first_token_p95_ms": percentile(first, 95),
        "time_per_output_token_ms": percentile(between, 50),
        "time_per_output_token_p95_ms": percentile(between, 95),
        "tokens_per_second": alone.tokens_per_second,
        "concurrency": float(together.concurrency),
        "concurrent_time_to_first_token_ms": percentile(first_together, 50),
        "concurrent_time_to_first_token_p95_ms": percentile(first_together, 95),
        "concurrent_tokens_per_second": together.tokens_per_second,
        "requests_per_second": len(together.timings) / together.seconds,
    }
