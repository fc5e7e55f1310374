"""Implements the stages' `Reporter` with the cluster's `Send`.

Defines the bodies of the three kinds of message that ranks can send too: progress, metrics and notes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from cluster.base import Message, Send
from stages.base import StageError


class StepReporter:
    """A `Reporter` for one step, in the step's own process or in one of its ranks."""

    def __init__(self, step: str, send: Send) -> None:
        self.step = step
        self._send = send

    def progress(self, done: float, total: float, unit: str = "", /, **info: float | str) -> None:
        self._send(Message(self.step, "progress", {"done": done, "total": total, "unit": unit, "info": info}))

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        body = {
            "values": {name: _number(name, value) for name, value in values.items()},
            "at": step,
            "time": time.time(),
        }
        self._send(Message(self.step, "metrics", body))

    def note(self, message: str) -> None:
        self._send(Message(self.step, "note", {"text": message}))

    def stopping(self) -> bool:
        return self._send.stopping()


def _number(name: str, value: object) -> float:
    """The value of a metric, NaN and infinities included. Raises StageError."""
    try:
        return float(value)  # type: ignore[arg-type]  # of NumPy or torch, for example
    except (TypeError, ValueError, OverflowError, RuntimeError):
        kind = type(value).__name__
        raise StageError(f"The metric {name!r} got a value of type {kind} that a float can't hold.") from None
