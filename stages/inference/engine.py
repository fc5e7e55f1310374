"""The generation engine: schedules sequences into a running batch, step by step.

One worker thread owns the model. Each step moves waiting sequences into free slots, reads a bounded number of prompt
tokens, and gives every running sequence its next token in one batched forward pass: sequences join and leave the batch
at every step (continuous batching; Orca, Yu et al., OSDI 2022). Long prompts are read in chunks between the steps of
the running sequences, so that they do not stall them. A prompt that several sequences of a request continue is read
once. Free slots go to the request with the fewest running sequences.

A sequence fails alone: if a batched step fails, it is repeated row by row.

Tokens are delivered through a `deliver` function called in the worker thread. It must not block and must not raise.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from stages.inference.generation import Deliver, Event, FinishReason, Generation, Prompt, Request
from stages.inference.observer import Observer
from stages.inference.sampling import Sampling, TokenLogprobs, logprobs, sample
from stages.inference.text import TextStream

STALL_S = 30.0  # in which a call of the model must return
STALL_FACTOR = 20  # or in this number of times the slowest one so far, if that is longer
CLOSE_TIMEOUT_S = 30.0  # for the step in progress when the engine is closed
SCORED_LOGITS = 1 << 23  # of a prompt whose log probabilities are asked for, held at once

log = logging.getLogger(__name__)

T = TypeVar("T")


class Batch(Protocol):
    """A model with its running sequences, each in a slot that holds its keys and values.

    A call that raises leaves the sequences as they were.
    """

    slots: int

    def read(self, slot: int, tokens: Sequence[int], *, every: bool) -> Tensor:
        """Read the next tokens of a slot's sequence.

        Returns the logits after the last of them, [1, vocabulary], or after each of them, [tokens, vocabulary], if
        `every` is set.
        """

    def fork(self, source: int, target: int, length: int) -> None:
        """Begin a sequence in the slot `target` with the first `length` tokens of that in the slot `source`."""

    def step(self, tokens: dict[int, int]) -> Tensor:
        """Read one token of each of several sequences. `tokens`: by slot.

        Returns logits [sequences, vocabulary], in the order of `tokens`.
        """

    def release(self, slot: int) -> None:
        """Discard a slot's sequence."""


class OverloadedError(Exception):
    """The engine's queue is full."""


class ClosedError(Exception):
    """The engine is closed, or has failed, and accepts no more sequences."""


class Engine:
    """Runs generations on a batch: at most `batch.slots` sequences at a time.

    A running sequence takes one place of `capacity`, and so do the waiting ones of a request all together. A request
    with many sequences therefore leaves places to others.
    """

    def __init__(
        self,
        batch: Batch,
        table: list[bytes],
        *,
        end_tokens: Collection[int],
        observer: Observer | None = None,
        max_waiting: int = 64,
        prefill_chunk: int = 256,
        threads: int | None = None,
    ) -> None:
        """Start the worker thread.

        table: the bytes of each token of the vocabulary. end_tokens: the tokens that end a sequence, any of them.
        observer: is informed of what happens, if given. prefill_chunk: prompt tokens read between two steps of the
        running sequences. threads: torch's threads within one operation (None: torch's default).
        """
        self._batch = batch
        self._table = table
        self._end_tokens = frozenset(end_tokens)
        self._observer = observer or Observer()
        self._max_waiting = max_waiting
        self._prefill_chunk = prefill_chunk
        self._threads = threads
        self._slowest_s = 0.0  # call of the model
        self._progressed = time.monotonic()  # when the latest call of the model ended, or work came to an idle engine
        self._changed = threading.Condition()  # guards what follows
        self._waiting: deque[Generation] = deque()
        self._running: list[Generation] = []
        self._free = list(range(batch.slots))
        self._closing = False
        self._worker = threading.Thread(target=self._work, name="generation", daemon=True)
        self._worker.start()

    @property
    def capacity(self) -> int:
        """The number of places for running sequences and waiting requests, and the most sequences of one request."""
        return self._batch.slots + self._max_waiting

    @property
    def alive(self) -> bool:
        """Whether the engine works: its thread runs, and if there is work, a call of the model has ended lately."""
        return self._worker.is_alive() and self.stalled_s <= max(STALL_S, STALL_FACTOR * self._slowest_s)

    @property
    def closing(self) -> bool:
        """Whether the engine accepts no more requests."""
        return self._closing

    @property
    def stalled_s(self) -> float:
        """Seconds since the latest progress; 0 if there is nothing to do."""
        return time.monotonic() - self._progressed if self._running or self._waiting else 0.0

    def submit(
        self,
        requests: Sequence[tuple[Sequence[int], Sampling, Deliver]],
        *,
        name: str = "",
        arrived: float | None = None,
    ) -> list[Generation]:
        """Queue all of the sequences (prompt, sampling, deliver) of one request, or none of them.

        name: the request's, for the log. arrived: when it came, by `time.monotonic` (None: now).
        Raises OverloadedError if the queue cannot take them all, ClosedError after `close` or a failure.
        """
        request = Request(name, time.monotonic() if arrived is None else arrived)
        prompts: dict[object, Prompt] = {}  # equal ones are read once
        generations = []
        for tokens, sampling, deliver in requests:
            key = tuple(tokens), sampling.prompt_logprobs, sampling.logprobs
            prompt = prompts.setdefault(key, Prompt(key[0]))
            generations.append(Generation(request, prompt, sampling, deliver, TextStream(self._table, sampling.stop)))
        with self._changed:
            if self._closing:
                raise ClosedError
            places = len(self._running) + len({one.request for one in self._waiting})
            if places >= self.capacity or len(generations) > self.capacity:
                raise OverloadedError
            if not (self._running or self._waiting):
                self._progressed = time.monotonic()
            self._waiting.extend(generations)
            self._count()
            self._changed.notify()
        return generations

    def cancel(self, generations: Sequence[Generation]) -> None:
        """End generations before the next step; those that have already ended are not affected."""
        with self._changed:
            for generation in generations:
                generation.cancelled = True
            self._changed.notify()

    def close(self) -> None:
        """Cancel all generations and wait for the worker thread to end. A step that does not return is left behind."""
        with self._changed:
            self._closing = True
            for generation in [*self._waiting, *self._running]:
                generation.cancelled = True
            self._changed.notify()
        self._worker.join(CLOSE_TIMEOUT_S)

    def _work(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                while self._schedule():
                    self._read_prompts()
                    self._write()
        except BaseException:
            log.exception("the generation engine failed and accepts no more requests")
            self._give_up()

    def _give_up(self) -> None:
        """End every generation with an error. The batch is not touched: its state is unknown."""
        with self._changed:
            self._closing = True
            left = [*self._running, *self._waiting]
            self._running.clear()
            self._waiting.clear()
        for generation in left:
            generation.deliver(Event(finish_reason="error"))

    def _schedule(self) -> bool:
        """Wait for work, drop cancelled generations and fill free slots. False once closed and empty."""
        with self._changed:
            while not (self._waiting or self._running or self._closing):
                self._changed.wait()
            cancelled = [one for one in [*self._waiting, *self._running] if one.cancelled]
            self._waiting = deque(one for one in self._waiting if not one.cancelled)
        for generation in cancelled:
            self._end(generation, "cancelled")
        with self._changed:
            while self._waiting and self._free:
                generation = min(self._waiting, key=lambda one: one.request.running)  # the first of several
                self._waiting.remove(generation)
                generation.slot = self._free.pop()
                generation.request.running += 1
                self._running.append(generation)
                self._observer.queued(time.monotonic() - generation.submitted)
            self._count()
            return bool(self._running) or not self._closing

    def _read_prompts(self) -> None:
        """Read prompts, `prefill_chunk` tokens at most. Sequences whose whole prompt was read get their first token."""
        budget = self._prefill_chunk
        for generation in list(self._running):
            prompt = generation.prompt
            if generation.has_read or generation.slot < 0:
                continue
            mates = [one for one in self._running if one.prompt is prompt and one is not generation]
            source = next((one for one in mates if one.has_read), None)
            if source is None and any(one.read for one in mates):
                continue  # a mate is reading the prompt for all
            with self._alone(generation):
                if source is None:
                    while budget > 0 and not generation.has_read:
                        budget -= self._read(generation, budget)
                else:
                    self._fork(source, generation)
            if source is not None:
                self._begin(generation)
            elif generation.has_read:
                for mate in mates:
                    with self._alone(mate):
                        self._fork(generation, mate)
                for one in [generation, *mates]:
                    self._begin(one)

    def _read(self, generation: Generation, budget: int) -> int:
        """Read the next tokens of a prompt, `budget` at most. Returns their number."""
        prompt, sampling, start = generation.prompt, generation.sampling, generation.read
        scored = sampling.prompt_logprobs
        if scored:  # their logits are held at once
            budget = min(budget, max(1, SCORED_LOGITS // len(self._table)))
        chunk = prompt.tokens[start : start + budget]
        logits = self._timed(lambda: self._batch.read(generation.slot, chunk, every=scored))
        if start == 0:
            prompt.logprobs = [TokenLogprobs(None)] if scored else []
        end = start + len(chunk)
        following = list(prompt.tokens[start + 1 : end + 1])
        if scored and following:
            of_vocabulary = logits[: len(following), : len(self._table)]
            prompt.logprobs.extend(logprobs(of_vocabulary, following, sampling.logprobs or 0))
        if end == len(prompt.tokens):
            prompt.logits = logits[-1:].clone()
        generation.read = end
        self._observer.prompt_tokens(len(chunk))
        return len(chunk)

    def _fork(self, source: Generation, target: Generation) -> None:
        length = len(source.prompt.tokens)
        self._timed(lambda: self._batch.fork(source.slot, target.slot, length))
        target.read = length

    def _begin(self, generation: Generation) -> None:
        """Give a sequence whose prompt was read its first token."""
        if generation.slot < 0 or generation.prompt.logits is None:
            return  # it has failed
        if generation.sampling.max_tokens == 0:
            self._end(generation, "length")
        else:
            self._advance(generation, generation.prompt.logits)

    def _write(self) -> None:
        """Give every sequence that is past its prompt its next token."""
        writing = {one: one.pending for one in self._running if one.pending is not None}
        if not writing:
            return
        try:
            logits = self._timed(lambda: self._batch.step({one.slot: token for one, token in writing.items()}))
        except Exception:
            log.exception("a step of %d sequences failed; it is repeated for each alone", len(writing))
            for generation, token in writing.items():
                self._step_alone(generation, token)
            return
        for generation, row in zip(writing, logits.split(1), strict=True):
            self._advance(generation, row)

    def _step_alone(self, generation: Generation, token: int) -> None:
        with self._alone(generation):
            row = self._timed(lambda: self._batch.step({generation.slot: token}))
            self._advance(generation, row)

    @contextmanager
    def _alone(self, generation: Generation) -> Iterator[None]:
        """Whatever fails within ends this sequence and nothing else."""
        try:
            yield
        except Exception:
            log.exception("a sequence of request %s failed and ends with an error", generation.request.name or "-")
            if generation.slot >= 0:
                self._end(generation, "error")

    def _timed(self, call: Callable[[], T]) -> T:
        """Call the model and note that it has made progress."""
        began = time.monotonic()
        try:
            return call()
        finally:
            self._progressed = time.monotonic()
            self._slowest_s = max(self._slowest_s, self._progressed - began)

    def _advance(self, generation: Generation, logits: Tensor) -> None:
        """Give a sequence its next token. `logits`: [1, vocabulary]."""
        with self._alone(generation):
            logits, vocabulary, sampling = logits.float(), len(self._table), generation.sampling
            known = logits[:, :vocabulary]
            if not known.isfinite().all():
                log.error("request %s: the model returned logits that are not finite", generation.request.name or "-")
                self._end(generation, "error")
                return
            if known.shape != logits.shape:
                # A head may have more rows than the tokenizer has tokens. They are excluded, not cut off, so that the
                # padding does not change what a seed draws.
                logits = logits.masked_fill(torch.arange(logits.shape[1]) >= vocabulary, -torch.inf)
            (token,) = sample(logits, [sampling], [generation.generator])
            scores = None if sampling.logprobs is None else logprobs(known, [token], sampling.logprobs)[0]
            self._emit(generation, token, scores)

    def _emit(self, generation: Generation, token: int, scores: TokenLogprobs | None) -> None:
        now = time.monotonic()
        if generation.generated == 0:
            self._observer.first_token(now - generation.request.arrived)
        else:
            self._observer.next_token(now - generation.latest)
        generation.latest, generation.pending = now, token
        generation.generated += 1
        is_end = token in self._end_tokens
        offset = generation.stream.decoded_characters
        text = "" if is_end else generation.stream.push(token)
        event = Event(text, token, is_end, offset, scores)
        if is_end or generation.stream.stopped:
            self._end(generation, "stop", event)
        elif generation.generated == generation.sampling.max_tokens:
            self._end(generation, "length", event)
        else:
            self._deliver(generation, event)

    def _end(self, generation: Generation, reason: FinishReason, event: Event | None = None) -> None:
        """Release a generation's slot and deliver its last event."""
        last = event or Event(offset=generation.stream.decoded_characters)
        rest = generation.stream.finish()
        if generation.stream.stopped:
            reason = "stop"
        with self._changed:
            if generation.slot >= 0:
                self._batch.release(generation.slot)
                self._free.append(generation.slot)
                self._running.remove(generation)
                generation.slot, generation.request.running = -1, generation.request.running - 1
            self._count()
        self._observer.finished(reason, generation.generated, time.monotonic() - generation.request.arrived)
        self._deliver(generation, replace(last, text=last.text + rest, finish_reason=reason))

    def _deliver(self, generation: Generation, event: Event) -> None:
        if generation.sampling.prompt_logprobs and generation.has_read and not generation.delivered:
            event = replace(event, prompt_logprobs=tuple(generation.prompt.logprobs))
        generation.delivered = True
        generation.deliver(event)

    def _count(self) -> None:
        self._observer.load(len(self._running), len(self._waiting), self._batch.slots)
