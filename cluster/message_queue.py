"""Messages on their way to the driver, in batches: a training step's metrics cost an append to a list.

A rank has an `Outbox`, whose thread hands batches to the process of its step. That process has the `Mailbox`, from
which the driver takes, again in batches. Nothing is lost but progress that a later one has overtaken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from cluster.base import Message, Outcome

GATHER_S = 0.05  # how long a batch may grow after its first message


def coalesce(messages: Sequence[Message]) -> list[Message]:
    """`messages` in their order, without the progress that a later one overtakes."""
    last = max((index for index, message in enumerate(messages) if message.kind == "progress"), default=-1)
    return [message for index, message in enumerate(messages) if message.kind != "progress" or index == last]


class Mailbox:
    """What a step has said and the driver has not taken yet. Thread-safe. A `Send`."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._outcome: Outcome | None = None
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._stopping = threading.Event()

    def __call__(self, message: Message) -> None:
        self.put([message])

    def put(self, messages: Sequence[Message]) -> None:
        with self._changed:
            self._messages.extend(messages)
            self._changed.notify()

    def end(self, outcome: Outcome) -> None:
        """The work is over: the outcome is the last thing that can be taken."""
        with self._changed:
            self._outcome = outcome
            self._ended.set()
            self._changed.notify()

    def take(self, timeout_s: float) -> list[Message | Outcome]:
        """What is there; waits for a first message, then a moment for others, but not once the work is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._outcome, timeout_s)
        self._ended.wait(GATHER_S)
        with self._changed:
            taken: list[Message | Outcome] = [*coalesce(self._messages)]
            self._messages.clear()
            if self._outcome:
                taken.append(self._outcome)
            return taken

    def stop(self) -> None:
        self._stopping.set()

    def stopping(self) -> bool:
        return self._stopping.is_set()


class Outbox:
    """Sends a rank's messages from a thread of its own, in order, one batch at a time. A `Send`.

    `deliver` hands a batch on and returns when it has arrived, so a slow receiver makes batches larger, not more.
    """

    def __init__(self, deliver: Callable[[list[Message]], Any], stopping: threading.Event) -> None:
        self._deliver = deliver
        self._stopping = stopping
        self._messages: list[Message] = []
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def __call__(self, message: Message) -> None:
        with self._changed:
            self._messages.append(message)
            self._changed.notify()

    def stopping(self) -> bool:
        return self._stopping.is_set()

    def close(self) -> None:
        """Returns when everything said so far has arrived, or can't any more."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._messages or self._closing.is_set())
            self._closing.wait(GATHER_S)
            with self._changed:
                batch, self._messages = coalesce(self._messages), []
            if batch:
                try:
                    self._deliver(batch)
                except Exception:  # the receiver is gone, and this process will follow it
                    return
            elif self._closing.is_set():
                return
