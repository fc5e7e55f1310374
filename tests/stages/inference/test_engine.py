import queue
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.inference.engine import ClosedError, Engine, OverloadedError
from stages.inference.generation import Event
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
        assert max(batch.reads) <= 4
        assert sum(batch.reads) == 23
        assert len({*batch.read_after[1:]}) >= 5  # steps of the other sequence lie between


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
    assert recorder.of("prompt_tokens") == [(2,), (2,), (1,)]
    assert [(reason, count) for reason, count, _ in recorder.of("finished")] == [("length", max_tokens)]


def test_a_sequence_ends_at_the_end_token_and_at_stop_strings() -> None:
    with running(ending=True) as (engine, _, _):
        ended = generate(engine, [([seed], Sampling(max_tokens=5000, seed=seed)) for seed in range(5, 9)])
    assert all((one[-1].finish_reason, one[-1].token, one[-1].is_end) == ("stop", END, True) for one in ended)
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
        for _ in range(3):
            engine.submit([one])
        with pytest.raises(OverloadedError):
            engine.submit([one])
        batch.gate.set()
        assert [events.get(timeout=60).finish_reason for _ in range(3)] == ["length"] * 3


def test_a_request_with_many_sequences_leaves_places_and_turns_to_others() -> None:
    with running(slots=2, max_waiting=6) as (engine, batch, _):
        batch.gate.clear()
        many: queue.Queue[Event] = queue.Queue()
        single: queue.Queue[Event] = queue.Queue()
        engine.submit([([5, n], Sampling(max_tokens=20), many.put) for n in range(8)])
        engine.submit([([6], Sampling(max_tokens=1), single.put)])
        batch.gate.set()
        drain(single)
        # It waited for one sequence of the other request, not for all.
        assert len([1 for _ in range(many.qsize()) if many.get().finish_reason]) <= 3


@settings(max_examples=20)
@given(
    n=st.integers(1, 6),
    slots=st.integers(1, 4),
    chunk=st.integers(1, 7),
    max_tokens=st.integers(0, 4),
    scored=st.booleans(),
)
def test_a_prompt_that_several_sequences_continue_is_read_once(
    n: int, slots: int, chunk: int, max_tokens: int, scored: bool
) -> None:
    prompt = [7, 8, 9, 10, 11]
    wanted = [
        (prompt, Sampling(max_tokens=max_tokens, seed=seed, logprobs=1, prompt_logprobs=scored)) for seed in range(n)
    ]
    with running(slots, prefill_chunk=chunk) as (engine, batch, _):
        together = generate(engine, wanted)
        if n <= slots:
            assert sum(batch.reads) == len(prompt)
        assert sum(batch.reads) <= len(prompt) * -(-n // slots)
    with running(1) as (engine, _, _):
        assert together == [generate(engine, [one])[0] for one in wanted]


@settings(max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 5), st.integers(1, 5))
def test_prompts_that_wait_together_are_read_within_the_bound(lengths: list[int], slots: int, chunk: int) -> None:
    with running(slots + 1, prefill_chunk=chunk) as (engine, batch, _):
        writing: queue.Queue[Event] = queue.Queue()
        others: queue.Queue[Event] = queue.Queue()
        (first,) = engine.submit([([5], Sampling(max_tokens=10**9), writing.put)])
        writing.get(timeout=60)
        engine.submit([([6 + n] * length, Sampling(max_tokens=3), others.put) for n, length in enumerate(lengths)])
        for _ in range(3 * len(lengths)):
            others.get(timeout=60)
        engine.cancel([first])
        assert all(sum(read) <= chunk for read in batch.reads_between_steps())


def test_the_token_that_ends_a_sequence_is_counted_and_scored() -> None:
    with running(ending=True) as (engine, _, recorder):
        events = generate(engine, [([5], Sampling(max_tokens=5000, seed=5, logprobs=2))])[0]
    assert all(event.logprobs is not None for event in events)
    assert [event.token == END for event in events] == [False] * (len(events) - 1) + [True]
    assert [count for _, count, _ in recorder.of("finished")] == [len(events)]


@pytest.mark.parametrize("poison", ["in a prompt", "in a step"])
def test_what_fails_ends_alone(poison: str) -> None:
    with running(slots=4) as (engine, batch, _):
        prompt = [END] if poison == "in a prompt" else [99]
        if poison == "in a prompt":
            batch.poison = END  # which no sequence generates
        else:  # the second token of one sequence
            (bad,) = generate(engine, [([99], Sampling(max_tokens=2, seed=1))])
            batch.poison = tokens(bad)[0]
        wanted = [([n], Sampling(max_tokens=9, seed=n)) for n in (10, 11, 12)]
        *good, bad = generate(engine, [*wanted, (prompt, Sampling(max_tokens=9, seed=1))])
        assert bad[-1].finish_reason == "error"
        if poison == "in a prompt":
            assert [events[-1].finish_reason for events in good] == ["length"] * 3
        else:
            survivors = [events for events in good if batch.poison not in tokens(events)[:-1]]
            assert all(events[-1].finish_reason == "length" for events in survivors)
            assert survivors
        assert engine.alive


def test_a_prompt_whose_log_probabilities_are_asked_for_is_read_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.inference.engine.SCORED_LOGITS", 3 * len(VOCABULARY))
    prompt = list(range(5, 15))
    with running() as (engine, batch, _):
        for scored in (True, False):
            generate(engine, [(prompt, Sampling(max_tokens=1, seed=1, prompt_logprobs=scored))])
        assert batch.reads == [3, 3, 3, 1, 10]


def test_health_is_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.inference.engine.STALL_S", 0.05)
    monkeypatch.setattr("stages.inference.engine.STALL_FACTOR", 0)
    with running(slots=1) as (engine, batch, _):
        events: queue.Queue[Event] = queue.Queue()
        time.sleep(0.1)
        assert engine.alive  # there is nothing to do
        batch.gate.clear()
        engine.submit([([5], Sampling(max_tokens=2), events.put)])
        deadline = time.monotonic() + 60
        while engine.alive:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        batch.gate.set()
        drain(events)
        while not engine.alive:  # the sequence has ended, and its slot is about to be counted as free
            assert time.monotonic() < deadline
            time.sleep(0.01)


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
        assert not closer.is_alive()
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
