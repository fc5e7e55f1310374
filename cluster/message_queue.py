"""Messages on their way to the driver, in batches: for a training step, sending metrics is an append to a list.

A rank has a `MessageSender`, whose thread sends batches to the process of its step. That process has a `MessageQueue`,
from which the driver takes batches. Nothing is dropped except progress that a later message replaces.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from cluster.base import Message, Outcome

GATHER_S = 0.05  # how long a batch collects further messages after its first


def coalesce(messages: Sequence[Message]) -> list[Message]:
    """`messages` in their order, with only the last of the progress messages."""
    last = max((index for index, message in enumerate(messages) if message.kind == "progress"), default=-1)
    return [message for index, message in enumerate(messages) if message.kind != "progress" or index == last]


class MessageQueue:
    """The messages of a step that the driver has not taken yet. Thread-safe. A `Send`."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._outcome: Outcome | None = None
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._stopping = threading.Event()
        self._taken: tuple[int, list[Message | Outcome]] = (0, [])  # the last batch, with its number

    def __call__(self, message: Message) -> None:
        self.put([message])

    def put(self, messages: Sequence[Message]) -> None:
        with self._changed:
            self._messages.extend(messages)
            self._changed.notify()

    def end(self, outcome: Outcome) -> None:
        """Report the outcome of the work: the last element that can be taken."""
        with self._changed:
            self._outcome = outcome
            self._ended.set()
            self._changed.notify()

    def take(self, timeout_s: float, number: int) -> list[Message | Outcome]:
        """Take all messages. Waits up to `timeout_s` for the first, then a moment for others unless the work ended.

        `number` counts the batches that the receiver has asked for, from 1 on. The same number again returns the same
        batch: its answer may have been lost. Only one thread takes.
        """
        if number == self._taken[0]:
            return self._taken[1]
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._outcome, timeout_s)
        self._ended.wait(GATHER_S)
        with self._changed:
            taken: list[Message | Outcome] = [*coalesce(self._messages)]
            self._messages.clear()
            if self._outcome:
                taken.append(self._outcome)
        self._taken = (number, taken)
        return taken

    def stop(self) -> None:
        self._stopping.set()

    def stopping(self) -> bool:
        return self._stopping.is_set()


class MessageSender:
    """Sends a rank's messages from its own thread, in order, one batch at a time. A `Send`.

    `deliver` returns when a batch has arrived, so a slow receiver leads to larger batches, not to more of them.
    """

    def __init__(self, deliver: Callable[[list[Message]], Any], stopping: threading.Event) -> None:
        self._deliver = deliver
        self._stopping = stopping
        self._messages: list[Message] = []
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="messages", daemon=True)
        self._thread.start()

    def __call__(self, message: Message) -> None:
        with self._changed:
            self._messages.append(message)
            self._changed.notify()

    def stopping(self) -> bool:
        return self._stopping.is_set()

    def close(self) -> None:
        """Return when all messages have arrived, or when the receiver is gone."""
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
                except Exception:  # the receiver is gone, and this process will end with it
                    return
            elif self._closing.is_set():
                return
