"""The trial of a served Checkpoint: completions, whole and streamed, their latency and their throughput in tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stages.base import StageError
from stages.serving.client import Client
from stages.serving.trial import Load, Results, apply_loads, latency_figure, percentile

PATH = "/v1/completions"

# Requests that no server may accept, each with the statuses with which it can be refused.
BAD_REQUESTS: tuple[tuple[str, bytes, tuple[int, ...]], ...] = (
    ("a body that is not JSON", b"{", (400, 422)),
    ("a prompt of a wrong type", b'{"prompt": {"text": 1}}', (400, 422)),
    ("a temperature out of range", b'{"prompt": "a", "temperature": -1}', (400, 422)),
    ("a model that does not exist", b'{"prompt": "a", "model": "no such model"}', (404,)),
)


@dataclass(frozen=True)
class Timing:
    """One streamed completion: the times (seconds) at which the request was sent and each piece of text arrived."""

    sent: float
    pieces: tuple[float, ...]
    tokens: int
    text: str

    @property
    def first_token_s(self) -> float:
        return self.pieces[0] - self.sent

    @property
    def per_token_s(self) -> float:
        """Mean time between two tokens."""
        return (self.pieces[-1] - self.pieces[0]) / max(1, self.tokens - 1)


@dataclass(frozen=True)
class CompletionTrial:
    """Asks for completions of one prompt, each with its own seed."""

    model_name: str  # the name that the server should list
    prompt: str
    max_tokens: int
    temperature: float

    def body(self, seed: int) -> dict[str, Any]:
        """The request with this seed."""
        return {
            "prompt": self.prompt,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": seed,
        }

    def check(self, client: Client) -> Mapping[str, str]:
        """Models, health, a completion, the same one streamed, and the refusal of bad requests."""
        client.json("GET", "/health")
        names = [model["id"] for model in client.json("GET", "/v1/models")["data"]]
        if names != [self.model_name]:
            raise StageError(f"the server lists the models {names}, expected {[self.model_name]}")
        answer = client.json("POST", PATH, {**self.body(0), "model": self.model_name})
        text: str = answer["choices"][0]["text"]
        streamed = stream(client, self.body(0)).text
        if streamed != text:
            raise StageError(f"the streamed answer differs from the whole answer: {streamed!r} and {text!r}")
        for what, bad, allowed in BAD_REQUESTS:
            status, _ = client.exchange("POST", PATH, bad)
            if status not in allowed:
                expected = " or ".join(map(str, allowed))
                raise StageError(f"{what} was answered with status {status}, expected {expected}")
        client.json("GET", "/health")
        return {"completion": f"{self.prompt} → {text}"}

    def measure(self, client: Client, requests: int, concurrency: int, progress: Callable[[int, int], None]) -> Results:
        alone, together = apply_loads(
            lambda index: stream(client, self.body(1 + index)), requests, concurrency, progress
        )
        notes: tuple[str, ...] = ()
        if [timing.text for timing in alone.timings] != [timing.text for timing in together.timings]:
            notes = ("some completions with the same seed differ between one client and several: rounding in batches",)
        first = {load.clients: [1000 * timing.first_token_s for timing in load.timings] for load in (alone, together)}
        rates = {load.clients: tokens_per_second(load) for load in (alone, together)}
        figure = latency_figure(first, "time to first token (ms)", rates, "tokens per second")
        return Results(summary(alone, together), figure, notes)


def stream(client: Client, body: Mapping[str, Any]) -> Timing:
    """One streamed completion, timed. Raises StageError if the stream has an error or is empty."""
    request = {**body, "stream": True, "stream_options": {"include_usage": True}}
    pieces: list[float] = []
    text: list[str] = []
    sent, tokens = time.perf_counter(), 0
    for event in client.events(PATH, request):
        if "error" in event:
            raise StageError(f"a streamed completion failed: {event['error'].get('message')}")
        if event.get("usage"):
            tokens = event["usage"]["completion_tokens"]
        for choice in event["choices"]:
            pieces.append(time.perf_counter())
            text.append(choice["text"])
    if not pieces:
        raise StageError("a streamed completion had no event")
    return Timing(sent, tuple(pieces), tokens, "".join(text))


def tokens_per_second(load: Load[Timing]) -> float:
    """The tokens of all completions over the time that they took all together."""
    return sum(timing.tokens for timing in load.timings) / load.seconds


def summary(alone: Load[Timing], together: Load[Timing]) -> dict[str, float]:
    """The metrics of two loads: one client, and several at once. In milliseconds where the name ends in `_ms`."""
    first = [1000 * timing.first_token_s for timing in alone.timings]
    between = [1000 * timing.per_token_s for timing in alone.timings]
    first_together = [1000 * timing.first_token_s for timing in together.timings]
    return {
        "time_to_first_token_ms": percentile(first, 50),
        "time_to_first_token_p95_ms": percentile(first, 95),
        "time_per_output_token_ms": percentile(between, 50),
        "time_per_output_token_p95_ms": percentile(between, 95),
        "tokens_per_second": tokens_per_second(alone),
        "concurrency": float(together.concurrency),
        "concurrent_time_to_first_token_ms": percentile(first_together, 50),
        "concurrent_time_to_first_token_p95_ms": percentile(first_together, 95),
        "concurrent_tokens_per_second": tokens_per_second(together),
        "requests_per_second": together.requests_per_second,
    }
