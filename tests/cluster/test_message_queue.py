"""Messages travel in batches; none is lost or reordered."""

from __future__ import annotations

import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.base import Message, Outcome
from cluster.message_queue import MessageQueue, MessageSender, coalesce

KINDS = st.sampled_from(["progress", "metrics", "note"])
MESSAGES = st.lists(st.builds(Message, st.just("step"), KINDS, st.fixed_dictionaries({"at": st.integers(0, 9)})))


@given(MESSAGES)
def test_coalescing_drops_only_progress_that_is_outdated(messages: list[Message]) -> None:
    kept = coalesce(messages)
    assert [m for m in kept if m.kind != "progress"] == [m for m in messages if m.kind != "progress"]
    assert [m for m in kept if m.kind == "progress"] == [m for m in messages if m.kind == "progress"][-1:]


def numbered(number: int) -> Message:
    return Message("step", "metrics", {"at": number})


def test_queue_returns_the_outcome_last_and_without_waiting() -> None:
    queue = MessageQueue()
    queue(numbered(1))
    queue.end(Outcome("step", "done"))
    assert queue.take(float("inf"), 1) == [numbered(1), Outcome("step", "done")]
    assert MessageQueue().take(0.01, 1) == []


def test_queue_returns_as_soon_as_a_message_arrives() -> None:
    queue = MessageQueue()
    threading.Timer(0.05, queue, [numbered(1)]).start()
    assert queue.take(60, 1) == [numbered(1)]


@settings(max_examples=20)
@given(st.lists(st.tuples(MESSAGES, st.integers(1, 3)), max_size=3))
def test_a_batch_whose_answer_was_lost_is_taken_again(batches: list[tuple[list[Message], int]]) -> None:
    queue = MessageQueue()
    for number, (messages, attempts) in enumerate(batches, start=1):
        queue.put(messages)
        taken = [queue.take(0, number) for _ in range(attempts)]
        assert taken == [coalesce(messages)] * attempts


def test_sender_delivers_in_order_and_in_few_batches_to_a_slow_receiver() -> None:
    batches: list[list[Message]] = []

    def slowly(batch: list[Message]) -> None:
        time.sleep(0.01)
        batches.append(batch)

    sender = MessageSender(slowly, threading.Event())
    for number in range(10_000):
        sender(numbered(number))
    sender.close()
    assert [message.body["at"] for batch in batches for message in batch] == list(range(10_000))
    assert len(batches) < 1_000


def test_sender_does_not_fail_when_its_receiver_is_gone() -> None:
    def gone(batch: list[Message]) -> None:
        raise ConnectionError

    stopping = threading.Event()
    sender = MessageSender(gone, stopping)
    sender(numbered(1))
    sender.close()
    sender(numbered(2))
    assert not sender.stopping()
    stopping.set()
    assert sender.stopping()
