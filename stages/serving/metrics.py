"""Metrics of a serving engine in Prometheus's text format. The names are vLLM's, with the prefix `bloomline:`.

Each replica counts for itself, and every sample has its name as the label `replica`: a query that sums over this label
gives the whole server's.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from stages.inference.observer import Observer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# From a small model on one core (a millisecond per token) to a large model on an overloaded machine.
_TOKEN_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_REQUEST_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics(Observer):
    """The metrics of one engine and its HTTP application. Every method can be called from any thread."""

    def __init__(self, model_name: str, replica: str = "0") -> None:
        self._registry = registry = CollectorRegistry()
        self._labels = {"model_name": model_name, "replica": replica}

        def made(kind: type, name: str, text: str, *labels: str, **options: Any) -> Any:
            return kind(f"bloomline:{name}", text, [*self._labels, *labels], registry=registry, **options)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            found: Histogram = made(Histogram, name, text, buckets=buckets).labels(**self._labels)
            return found

        def single(kind: type, name: str, text: str) -> Any:
            return made(kind, name, text).labels(**self._labels)

        self._running = single(Gauge, "num_requests_running", "Number of sequences in the running batch.")
        self._waiting = single(Gauge, "num_requests_waiting", "Number of sequences waiting for a slot in the batch.")
        self._usage = single(Gauge, "kv_cache_usage_perc", "Fraction of the cache slots in use, 0 to 1.")
        self._prompt = single(Counter, "prompt_tokens", "Number of prompt tokens processed.")
        self._generated = single(Counter, "generation_tokens", "Number of tokens generated.")
        self._rejected = made(Counter, "request_rejected", "Number of rejected requests by HTTP status.", "status")
        self._success = made(
            Counter, "request_success", "Number of finished sequences by finish reason.", "finished_reason"
        )
        self._first = histogram(
            "time_to_first_token_seconds", "Seconds from a request to its first token.", _REQUEST_BUCKETS_S
        )
        self._next = histogram(
            "inter_token_latency_seconds", "Seconds between two tokens of a sequence.", _TOKEN_BUCKETS_S
        )
        self._queue = histogram(
            "request_queue_time_seconds", "Seconds that a request waits for a slot.", _REQUEST_BUCKETS_S
        )
        self._whole = histogram(
            "e2e_request_latency_seconds", "Seconds from a request to its last token.", _REQUEST_BUCKETS_S
        )

    def load(self, running: int, waiting: int, slots: int) -> None:
        self._running.set(running)
        self._waiting.set(waiting)
        self._usage.set(running / slots)

    def queued(self, seconds: float) -> None:
        self._queue.observe(seconds)

    def prompt_tokens(self, count: int) -> None:
        self._prompt.inc(count)

    def first_token(self, seconds: float) -> None:
        self._generated.inc()
        self._first.observe(seconds)

    def next_token(self, seconds: float) -> None:
        self._generated.inc()
        self._next.observe(seconds)

    def finished(self, reason: str, tokens: int, seconds: float) -> None:
        self._success.labels(**self._labels, finished_reason=reason).inc()
        self._whole.observe(seconds)

    def rejected(self, status: int) -> None:
        """A request was answered with this HTTP error status."""
        self._rejected.labels(**self._labels, status=str(status)).inc()

    def render(self) -> bytes:
        """All metrics in Prometheus's text format, version 0.0.4."""
        return generate_latest(self._registry)
