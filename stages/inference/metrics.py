"""What a serving engine measures, in Prometheus's text format. Names follow vLLM's, under `bloomline:`."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# From a small model on one core (a millisecond a token) to a large one that is short of everything.
_TOKEN_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_REQUEST_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """The counters of one engine. Every method may be called from any thread. Times are in seconds."""

    def __init__(self, model_name: str) -> None:
        self._registry = registry = CollectorRegistry()

        def made(kind: type, name: str, text: str, *labels: str, **options: Any) -> Any:
            return kind(f"bloomline:{name}", text, ["model_name", *labels], registry=registry, **options)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            found: Histogram = made(Histogram, name, text, buckets=buckets).labels(model_name)
            return found

        self._running = made(Gauge, "num_requests_running", "Sequences in the running batch.").labels(model_name)
        self._waiting = made(Gauge, "num_requests_waiting", "Sequences that wait for a slot.").labels(model_name)
        self._usage = made(Gauge, "kv_cache_usage_perc", "Share of the cache's slots in use, 0 to 1.").labels(
            model_name
        )
        self._prompt = made(Counter, "prompt_tokens", "Prompt tokens read.").labels(model_name)
        self._generated = made(Counter, "generation_tokens", "Tokens generated.").labels(model_name)
        self._rejected = made(Counter, "request_rejected", "Requests refused, by HTTP status.", "status")
        self._success = made(Counter, "request_success", "Sequences ended, by reason.", "finished_reason")
        self._model_name = model_name
        self._first = histogram("time_to_first_token_seconds", "From request to first token.", _REQUEST_BUCKETS_S)
        self._next = histogram("inter_token_latency_seconds", "From one token to the next.", _TOKEN_BUCKETS_S)
        self._queue = histogram("request_queue_time_seconds", "From request to a free slot.", _REQUEST_BUCKETS_S)
        self._whole = histogram("e2e_request_latency_seconds", "From request to last token.", _REQUEST_BUCKETS_S)

    def load(self, running: int, waiting: int, slots: int) -> None:
        self._running.set(running)
        self._waiting.set(waiting)
        self._usage.set(running / slots)

    def queued(self, seconds: float) -> None:
        self._queue.observe(seconds)

    def prompt_tokens(self, count: int) -> None:
        self._prompt.inc(count)

    def first_token(self, seconds: float) -> None:
        self._first.observe(seconds)

    def next_token(self, seconds: float) -> None:
        self._next.observe(seconds)

    def finished(self, reason: str, tokens: int, seconds: float) -> None:
        self._generated.inc(tokens)
        self._success.labels(self._model_name, reason).inc()
        self._whole.observe(seconds)

    def rejected(self, status: int) -> None:
        self._rejected.labels(self._model_name, str(status)).inc()

    def render(self) -> bytes:
        return generate_latest(self._registry)
