import queue
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.inference.engine import ClosedError, Engine, Event, OverloadedError
from stages.inference.sampling import Sampling
from stages.inference.text import Vocabulary
from tests.stages.inference.support import END, Recorder, ScriptedBatch, byte_level_tokenizer

VOCABULARY = Vocabulary(byte_level_tokenizer())


@contextmanager
def running(
    slots: int = 4,
    max_waiting: int = 64,
    prefill_chunk: int = 256,
    ending: bool = False,
    end_tokens: Collection[int] = (END,),
) -> Iterator[tuple[Engine, ScriptedBatch, Recorder]]:
    batch = ScriptedBatch(len(VOCABULARY) + 5, slots, ending)  # a head padded beyond the vocabulary
    observer = Recorder()
    engine = Engine(
        batch,
        VOCABULARY.table,
        end_tokens=end_tokens,
        observer=observer,
        max_waiting=max_waiting,
        prefill_chunk=prefill_chunk,
    )
    try:
        yield engine, batch, observer
    finally:
        batch.gate.set()
        engine.close()
        assert not engine.alive
        assert batch.sequences == {}, "a slot was not given back"


def drain(events: queue.Queue[Event]) -> list[Event]:
    found: list[Event] = []
    while not found or found[-1].finish_reason is None:
        found.append(events.get(timeout=60))
    assert events.empty()
    return found


def generate(engine: Engine, requests: list[tuple[list[int], Sampling]]) -> list[list[Event]]:
    queues: list[queue.Queue[Event]] = [queue.Queue() for _ in requests]
    engine.submit([(prompt, sampling, one.put) for (prompt, sampling), one in zip(requests, queues, strict=True)])
    return [drain(one) for one in queues]


def tokens(events: list[Event]) -> list[int]:
    return [event.token for event in events if event.token is not None]


requests = st.lists(
    st.tuples(
        st.lists(st.integers(0, len(VOCABULARY) - 1), min_size=1, max_size=12),
        st.builds(
            Sampling,
            max_tokens=st.integers(0, 8),
            temperature=st.sampled_from([0.0, 1.0]),
            seed=st.integers(0, 3),
            top_p=st.sampled_from([1.0, 0.9]),
            logprobs=st.sampled_from([None, 0, 2]),
        ),
    ),
    min_size=1,
    max_size=7,
)


@settings(max_examples=25)
@given(requests, st.integers(1, 4), st.integers(1, 5))
def test_a_sequence_is_the_same_in_any_batch(wanted: list[tuple[list[int], Sampling]], slots: int, chunk: int) -> None:
    with running(slots, prefill_chunk=chunk, ending=True) as (engine, _, _):
        together = generate(engine, wanted)
    with running(1, prefill_chunk=64, ending=True) as (engine, _, _):
        alone = [generate(engine, [one])[0] for one in wanted]
    assert together == alone


def test_sequences_join_and_leave_the_running_batch_at_every_step() -> None:
    with running(slots=3) as (engine, batch, _):
        batch.gate.clear()
        queues: list[queue.Queue[Event]] = [queue.Queue() for _ in range(5)]
        lengths = zip((2, 9, 4, 3, 2), queues, strict=True)
        engine.submit([([5], Sampling(max_tokens=length), events.put) for length, events in lengths])
        batch.gate.set()
        assert [len(tokens(drain(events))) for events in queues] == [2, 9, 4, 3, 2]
    # The first token comes with the prompt; the free slots were taken up at once, not when the batch was done.
    assert len(batch.widths) == 8
    assert max(batch.widths) == 3


def test_a_long_prompt_is_read_in_pieces_between_the_steps_of_others() -> None:
    with running(slots=2, prefill_chunk=4) as (engine, batch, _):
        first: queue.Queue[Event] = queue.Queue()
        second: queue.Queue[Event] = queue.Queue()
        batch.gate.clear()
        engine.submit([([5], Sampling(max_tokens=30), first.put)])
        engine.submit([([6] * 22, Sampling(max_tokens=1), second.put)])
        batch.gate.set()
        drain(second)
        drain(first)
        assert batch.reads[1:] == [4, 4, 4, 4, 4, 2]


@pytest.mark.parametrize("max_tokens", [0, 1, 5])
def test_the_length_limit_and_the_prompt_logprobs(max_tokens: int) -> None:
    with running(prefill_chunk=2) as (engine, _, recorder):
        sampling = Sampling(max_tokens=max_tokens, logprobs=1, prompt_logprobs=True)
        events = generate(engine, [([7, 8, 9, 10, 11], sampling)])[0]
    assert len(tokens(events)) == max_tokens
    assert [event.finish_reason for event in events] == [None] * (len(events) - 1) + ["length"]
    assert [event.prompt_logprobs is not None for event in events] == [True] + [False] * (len(events) - 1)
    scores = events[0].prompt_logprobs
    assert scores is not None
    assert [one.chosen is None for one in scores] == [True, False, False, False, False]
    assert recorder.of("prompt_tokens") == [(5,)]
    assert [(reason, count) for reason, count, _ in recorder.of("finished")] == [("length", max_tokens)]


def test_a_sequence_ends_at_the_end_token_and_at_stop_strings() -> None:
    with running(ending=True) as (engine, _, _):
        ended = generate(engine, [([seed], Sampling(max_tokens=5000, seed=seed)) for seed in range(5, 9)])
    assert all(events[-1].finish_reason == "stop" and events[-1].token is None for events in ended)
    text = "".join(event.text for event in ended[0])
    stop = text[len(text) // 2 : len(text) // 2 + 2]
    with running(ending=True) as (engine, _, _):
        sampling = Sampling(max_tokens=5000, seed=5, stop=(stop,))
        stopped = generate(engine, [([5], sampling)])[0]
    assert "".join(event.text for event in stopped) == text[: text.find(stop)]
    assert stopped[-1].finish_reason == "stop"


def test_each_of_several_end_tokens_ends_a_sequence() -> None:
    sampling = Sampling(max_tokens=12, temperature=0)
    with running(end_tokens=()) as (engine, _, _):
        endless = tokens(generate(engine, [([5], sampling)])[0])
    assert len(endless) == 12
    for place in (3, 7, 11):
        with running(end_tokens=(END, endless[place])) as (engine, _, _):
            events = generate(engine, [([5], sampling)])[0]
        assert (events[-1].finish_reason, events[-1].text) == ("stop", "")
        shown = VOCABULARY.decode(endless[: endless.index(endless[place])])
        assert "".join(event.text for event in events) == shown


def test_cancelling_frees_the_slot_for_those_that_wait() -> None:
    with running(slots=1, max_waiting=2) as (engine, batch, _):
        first, waiting, last = [queue.Queue[Event]() for _ in range(3)]
        running_one = engine.submit([([5], Sampling(max_tokens=10**9), first.put)])
        first.get(timeout=60)
        waiting_one = engine.submit([([6], Sampling(max_tokens=5), waiting.put)])
        engine.submit([([7], Sampling(max_tokens=5), last.put)])
        engine.cancel([*waiting_one, *running_one])
        assert drain(waiting) == [Event(finish_reason="cancelled")]
        assert drain(first)[-1].finish_reason == "cancelled"
        assert drain(last)[-1].finish_reason == "length"
        engine.cancel(running_one)  # once more: nothing happens
        assert first.empty()
        assert batch.sequences == {}


def test_more_than_may_run_and_wait_is_refused_whole() -> None:
    with running(slots=2, max_waiting=1) as (engine, batch, _):
        batch.gate.clear()
        events: queue.Queue[Event] = queue.Queue()
        one = ([5], Sampling(max_tokens=1), events.put)
        with pytest.raises(OverloadedError):
            engine.submit([one] * 4)
        engine.submit([one] * 2)
        with pytest.raises(OverloadedError):
            engine.submit([one] * 2)
        engine.submit([one])
        with pytest.raises(OverloadedError):
            engine.submit([one])
        batch.gate.set()
        assert [events.get(timeout=60).finish_reason for _ in range(3)] == ["length"] * 3


def test_a_failing_step_ends_its_sequences_and_nothing_else() -> None:
    with running() as (engine, batch, _):
        batch.fail = True
        failed = generate(engine, [([5], Sampling()), ([6], Sampling())])
        assert [events[-1].finish_reason for events in failed] == ["error", "error"]
        batch.fail = False
        assert generate(engine, [([5], Sampling())])[0][-1].finish_reason == "length"
        assert engine.alive


def test_a_broken_engine_ends_all_waiting_requests_and_accepts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(slots=1) as (engine, batch, _):
        batch.gate.clear()
        queues: list[queue.Queue[Event]] = [queue.Queue(), queue.Queue()]
        for events in queues:
            engine.submit([([5], Sampling(), events.put)])
        monkeypatch.setattr(batch, "release", lambda slot: 1 / 0)
        batch.fail = True
        batch.gate.set()
        assert [drain(events)[-1].finish_reason for events in queues] == ["error", "error"]
        engine._worker.join(20)
        assert not engine.alive
        with pytest.raises(ClosedError):
            engine.submit([([5], Sampling(), queues[0].put)])


def test_logits_that_are_not_finite_end_only_their_own_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as (engine, batch, _):
        honest = batch._logits
        monkeypatch.setattr(
            batch, "_logits", lambda slot: honest(slot) * (float("nan") if batch.sequences[slot][0] == 6 else 1)
        )
        batch.ending = True  # no logit is masked: those of the others are finite
        good, bad = generate(engine, [([5], Sampling(max_tokens=3)), ([6], Sampling(max_tokens=3))])
    assert good[-1].finish_reason in ("length", "stop")
    assert bad == [Event(finish_reason="error")]


def test_closing_cancels_what_runs_and_refuses_more() -> None:
    with running(slots=1) as (engine, _, _):
        queues: list[queue.Queue[Event]] = [queue.Queue(), queue.Queue()]
        for events in queues:
            engine.submit([([5], Sampling(max_tokens=10**9), events.put)])
        closer = threading.Thread(target=engine.close)
        closer.start()
        assert [drain(events)[-1].finish_reason for events in queues] == ["cancelled", "cancelled"]
        closer.join(20)
        with pytest.raises(ClosedError):
            engine.submit([([5], Sampling(), queues[0].put)])


def test_an_observer_is_informed_of_all_work() -> None:
    with running(slots=2) as (engine, batch, recorder):
        batch.gate.clear()
        events: queue.Queue[Event] = queue.Queue()
        engine.submit([([5], Sampling(max_tokens=2), events.put)] * 3)
        deadline = time.monotonic() + 60
        while (2, 1, 2) not in recorder.of("load"):  # running, waiting, slots
            assert time.monotonic() < deadline
            time.sleep(0.01)
        batch.gate.set()
        for _ in range(6):
            events.get(timeout=60)
    assert [len(recorder.of(name)) for name in ("queued", "first_token", "next_token", "finished")] == [3, 3, 3, 3]
    assert recorder.of("load")[-1] == (0, 0, 2)
