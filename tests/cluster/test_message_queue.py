"""Messages in batches: nothing lost, nothing reordered."""

from __future__ import annotations

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from cluster.base import Message, Outcome
from cluster.message_queue import Mailbox, Outbox, coalesce

KINDS = st.sampled_from(["progress", "metrics", "note"])
MESSAGES = st.lists(st.builds(Message, st.just("step"), KINDS, st.fixed_dictionaries({"at": st.integers(0, 9)})))


@given(MESSAGES)
def test_coalescing_drops_overtaken_progress_only(messages: list[Message]) -> None:
    kept = coalesce(messages)
    assert [m for m in kept if m.kind != "progress"] == [m for m in messages if m.kind != "progress"]
    assert [m for m in kept if m.kind == "progress"] == [m for m in messages if m.kind == "progress"][-1:]


def numbered(number: int) -> Message:
    return Message("step", "metrics", {"at": number})


def test_mailbox_gives_the_outcome_last_and_never_waits_after_it() -> None:
    mailbox = Mailbox()
    mailbox(numbered(1))
    mailbox.end(Outcome("step", "done"))
    assert mailbox.take(float("inf")) == [numbered(1), Outcome("step", "done")]
    assert Mailbox().take(0.01) == []


def test_mailbox_wakes_up_for_a_message() -> None:
    mailbox = Mailbox()
    threading.Timer(0.05, mailbox, [numbered(1)]).start()
    assert mailbox.take(60) == [numbered(1)]


def test_outbox_delivers_in_order_in_few_batches_whatever_the_receivers_pace() -> None:
    batches: list[list[Message]] = []

    def slowly(batch: list[Message]) -> None:
        time.sleep(0.01)
        batches.append(batch)

    outbox = Outbox(slowly, threading.Event())
    for number in range(10_000):
        outbox(numbered(number))
    outbox.close()
    assert [message.body["at"] for batch in batches for message in batch] == list(range(10_000))
    assert len(batches) < 1_000


def test_outbox_survives_a_receiver_that_is_gone() -> None:
    def gone(batch: list[Message]) -> None:
        raise ConnectionError

    stopping = threading.Event()
    outbox = Outbox(gone, stopping)
    outbox(numbered(1))
    outbox.close()
    outbox(numbered(2))
    assert not outbox.stopping()
    stopping.set()
    assert outbox.stopping()
