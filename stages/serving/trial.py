"""The trial of a served application: does it answer as expected, and how fast?

A `Trial` knows how one kind of application is asked and measured. `ExampleTrial` is that of every Servable with example
requests; a Checkpoint has its own (`stages.serving.language_model`).
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from stages.base import ExampleRequest, Servable, StageError
from stages.serving.client import Client

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")

LONGEST_ANSWER = 500  # characters of an answer that are shown


@dataclass(frozen=True)
class Results:
    """What a trial measured: metrics by name, a figure of them, and remarks for the log."""

    metrics: Mapping[str, float]
    figure: Figure
    notes: tuple[str, ...] = ()


class Trial(Protocol):
    """How one kind of application is asked and measured."""

    def check(self, client: Client) -> Mapping[str, str]:
        """Raise StageError unless the application answers as expected. Returns texts worth showing, by title."""

    def measure(self, client: Client, requests: int, concurrency: int, progress: Callable[[int, int], None]) -> Results:
        """Time `requests` requests by one client, and as many by `concurrency` clients at once.

        progress: called with the numbers of requests sent and of all requests.
        """


@dataclass(frozen=True)
class Load(Generic[T]):
    """The timings of requests that `concurrency` clients sent, and the seconds that they took all together."""

    concurrency: int
    timings: tuple[T, ...]
    seconds: float

    @property
    def requests_per_second(self) -> float:
        return len(self.timings) / self.seconds

    @property
    def clients(self) -> str:
        return "1 client" if self.concurrency == 1 else f"{self.concurrency} clients"


def apply_loads(
    send: Callable[[int], T], requests: int, concurrency: int, progress: Callable[[int, int], None]
) -> tuple[Load[T], Load[T]]:
    """The same requests by one client and by several at once. `send`: sends the request of a number and times it."""
    alone = apply_load(send, requests, 1)
    progress(requests, 2 * requests)
    together = apply_load(send, requests, concurrency)
    progress(2 * requests, 2 * requests)
    return alone, together


def apply_load(send: Callable[[int], T], requests: int, concurrency: int) -> Load[T]:
    """Send requests 0 to `requests` - 1, `concurrency` at a time."""
    started = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        timings = tuple(pool.map(send, range(requests)))
    return Load(concurrency, timings, time.perf_counter() - started)


def percentile(values: Sequence[float], percent: int) -> float:
    """A percentile, 1 to 99, by linear interpolation."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


class ExampleTrial:
    """The trial of an artifact by its own example requests. Measures the latency of those that should succeed."""

    def __init__(self, artifact: Servable) -> None:
        self._examples = tuple(artifact.examples())
        if not self._examples:
            raise StageError(
                f"{type(artifact).__name__} has no example requests, so there is nothing to check or measure: return "
                "at least one from its method `examples`"
            )
        self._timed = [one for one in self._examples if one.status < 400] or self._examples

    def check(self, client: Client) -> Mapping[str, str]:
        answers = [_ask(client, example) for example in self._examples]
        first = self._examples[0]
        asked = "" if first.body is None else f"{legible(first.body)}\n→ "
        return {f"{first.method} {first.path}": asked + _legible_answer(answers[0])}

    def measure(self, client: Client, requests: int, concurrency: int, progress: Callable[[int, int], None]) -> Results:
        def send(index: int) -> float:
            started = time.perf_counter()
            _ask(client, self._timed[index % len(self._timed)])
            return 1000 * (time.perf_counter() - started)

        alone, together = apply_loads(send, requests, concurrency, progress)
        metrics = {
            "latency_ms": percentile(alone.timings, 50),
            "latency_p95_ms": percentile(alone.timings, 95),
            "requests_per_second": alone.requests_per_second,
            "concurrency": float(concurrency),
            "concurrent_latency_ms": percentile(together.timings, 50),
            "concurrent_latency_p95_ms": percentile(together.timings, 95),
            "concurrent_requests_per_second": together.requests_per_second,
        }
        curves = {load.clients: load.timings for load in (alone, together)}
        rates = {load.clients: load.requests_per_second for load in (alone, together)}
        return Results(metrics, latency_figure(curves, "latency (ms)", rates, "requests per second"))


def legible(value: object, most: int = 20) -> str:
    """A JSON value as a person reads it: a line for each field, at most `most` of them or values of a list."""
    if isinstance(value, Mapping):
        lines = [f"{name}: {_in_line(inner, most)}" for name, inner in list(value.items())[:most]]
        return "\n".join([*lines, "…"] if len(value) > most else lines)
    return _in_line(value, most)


def _in_line(value: object, most: int) -> str:
    if isinstance(value, Mapping):
        return "(" + legible(value, most).replace("\n", ", ") + ")"
    if isinstance(value, list | tuple):
        shown = [_in_line(inner, most) for inner in value[:most]]
        return ", ".join([*shown, f"… ({len(value)} values)"] if len(value) > most else shown)
    return f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _legible_answer(answer: bytes) -> str:
    try:
        shown = legible(json.loads(answer))
    except (ValueError, RecursionError):  # it need not be JSON
        shown = answer.decode(errors="replace")
    return shown if len(shown) <= LONGEST_ANSWER else shown[:LONGEST_ANSWER] + " …"


def _ask(client: Client, example: ExampleRequest) -> bytes:
    """The answer to an example request. Raises StageError if it is not as expected."""
    body = None if example.body is None else json.dumps(example.body, allow_nan=False).encode()
    status, answer = client.exchange(example.method, example.path, body)
    what = f"{example.method} {example.path}"
    if status != example.status:
        raise StageError(f"{what} was answered with status {status}, expected {example.status}: {answer[:500]!r}")
    if example.check is not None:
        try:
            example.check(answer)
        except Exception as error:  # an assertion or a missing key, as well as a ValueError
            reason = f"{type(error).__name__}: {error}"
            raise StageError(f"the answer to {what} is not as expected: {reason}: {answer[:500]!r}") from error
    return answer


def latency_figure(
    curves: Mapping[str, Sequence[float]], quantity: str, rates: Mapping[str, float], rate: str
) -> Figure:
    """The cumulative distribution of latencies in ms (left) and the throughput (right), a color for each load.

    curves, rates: by the name of the load. quantity, rate: labels of the two axes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    for name, latencies in curves.items():
        values = sorted(latencies)
        shares = [100 * (index + 1) / len(values) for index in range(len(values))]
        left.step([values[0], *values], [0, *shares], where="post", label=name)
    left.set(xlabel=quantity, ylabel="requests (%)", ylim=(0, 102))
    left.set_xlim(left=0)
    left.legend(loc="lower right", frameon=False)
    bars = right.bar(list(rates), list(rates.values()), color=[f"C{place}" for place in range(len(rates))])
    right.bar_label(bars, fmt="%.0f")
    right.set(ylabel=rate)
    right.margins(y=0.15)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
