"""The generation engine: schedules sequences into a running batch, step by step.

One worker thread owns the model. Each step moves waiting sequences into free slots, reads a bounded number of prompt
tokens, and gives every running sequence its next token in one batched forward pass: sequences join and leave the batch
at every step (continuous batching; Orca, Yu et al., OSDI 2022). Long prompts are read in chunks between the steps of
the running sequences, so that they do not stall them.

Tokens are delivered through a `deliver` function called in the worker thread. It must not block and must not raise.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from stages.inference.observer import Observer
from stages.inference.sampling import Sampling, TokenLogprobs, logprobs, sample
from stages.inference.text import TextStream

FinishReason = Literal["stop", "length", "cancelled", "error"]

log = logging.getLogger(__name__)


class Batch(Protocol):
    """A model with its running sequences, each in a slot that holds its keys and values."""

    slots: int

    def read(self, slot: int, tokens: Sequence[int], *, every: bool) -> Tensor:
        """Read the next tokens of a slot's sequence.

        Returns the logits after the last of them, [1, vocabulary], or after each of them, [tokens, vocabulary], if
        `every` is set.
        """

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


@dataclass(frozen=True)
class Event:
    """One token of a sequence, or its end, or both."""

    text: str = ""  # complete characters that can be shown now
    token: int | None = None
    offset: int = 0  # characters of the completion before this token
    logprobs: TokenLogprobs | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None  # once, with the first event, if asked for
    finish_reason: FinishReason | None = None  # set on the last event only


Deliver = Callable[[Event], None]


@dataclass(eq=False)
class Generation:
    """The state of one sequence from its prompt to its end. Only the engine changes it."""

    prompt: tuple[int, ...]  # at least one token
    sampling: Sampling
    deliver: Deliver
    stream: TextStream
    submitted: float = field(default_factory=time.monotonic)
    latest: float = 0.0  # when the latest token was delivered
    slot: int = -1
    read: int = 0  # tokens of the prompt that the model has read
    generated: int = 0
    pending: int | None = None  # the latest token, which the model has not read yet
    cancelled: bool = False
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.generator = self.sampling.generator()
        if self.sampling.prompt_logprobs:
            self.prompt_logprobs.append(TokenLogprobs(None))


class Engine:
    """Runs generations on a batch: at most `batch.slots` at a time, and at most `max_waiting` more in the queue."""

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
        self._changed = threading.Condition()  # guards what follows
        self._waiting: deque[Generation] = deque()
        self._running: list[Generation] = []
        self._free = list(range(batch.slots))
        self._closing = False
        self._worker = threading.Thread(target=self._work, name="generation", daemon=True)
        self._worker.start()

    @property
    def capacity(self) -> int:
        """The largest number of generations that can run and wait at the same time."""
        return self._batch.slots + self._max_waiting

    @property
    def alive(self) -> bool:
        return self._worker.is_alive()

    def submit(self, requests: Sequence[tuple[Sequence[int], Sampling, Deliver]]) -> list[Generation]:
        """Queue all of the requests (prompt, sampling, deliver), or none of them.

        Raises OverloadedError if the queue cannot take them all, ClosedError after `close` or a failure.
        """
        generations = [
            Generation(tuple(prompt), sampling, deliver, TextStream(self._table, sampling.stop))
            for prompt, sampling, deliver in requests
        ]
        with self._changed:
            if self._closing:
                raise ClosedError
            if len(self._waiting) + len(self._running) + len(generations) > self.capacity:
                raise OverloadedError
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
        """Cancel all generations and wait for the worker thread to end."""
        with self._changed:
            self._closing = True
            for generation in [*self._waiting, *self._running]:
                generation.cancelled = True
            self._changed.notify()
        self._worker.join()

    def _work(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                while self._schedule():
                    try:
                        self._step()
                    except Exception:
                        # A failed step (out of memory, for example) must not end the engine and its queue.
                        running = list(self._running)
                        log.exception("a generation step failed; its %d sequences end with an error", len(running))
                        for generation in running:
                            self._end(generation, "error")
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
                generation = self._waiting.popleft()
                generation.slot = self._free.pop()
                self._running.append(generation)
                self._observer.queued(time.monotonic() - generation.submitted)
            self._count()
            return bool(self._running) or not self._closing

    def _step(self) -> None:
        budget = self._prefill_chunk
        for generation in [one for one in self._running if one.read < len(one.prompt)]:
            while budget > 0 and generation.read < len(generation.prompt):
                budget -= self._read_prompt(generation)
        writing = [one for one in self._running if one.pending is not None]
        if writing:
            logits = self._batch.step({one.slot: one.pending for one in writing if one.pending is not None})
            self._advance(writing, logits)

    def _read_prompt(self, generation: Generation) -> int:
        """Read a chunk of a prompt and, after its last token, deliver the first new one. The number of tokens read."""
        sampling, start = generation.sampling, generation.read
        chunk = generation.prompt[start : start + self._prefill_chunk]
        logits = self._batch.read(generation.slot, chunk, every=sampling.prompt_logprobs)
        generation.read += len(chunk)
        if sampling.prompt_logprobs:
            following = list(generation.prompt[start + 1 : generation.read + 1])
            if following:
                of_vocabulary = logits[: len(following), : len(self._table)]
                predicted = logprobs(of_vocabulary, following, sampling.logprobs or 0)
                generation.prompt_logprobs.extend(predicted)
        if generation.read == len(generation.prompt):
            self._observer.prompt_tokens(len(generation.prompt))
            if sampling.max_tokens == 0:
                self._end(generation, "length")
            else:
                self._advance([generation], logits[-1:])
        return len(chunk)

    def _advance(self, generations: list[Generation], logits: Tensor) -> None:
        """Give each generation its next token. `logits`: [generations, vocabulary]."""
        logits, vocabulary = logits.float(), len(self._table)
        finite = logits[:, :vocabulary].isfinite().all(dim=-1).tolist()
        if not all(finite):
            log.error("the model returned logits that are not finite")
            for generation in [one for one, good in zip(generations, finite, strict=True) if not good]:
                self._end(generation, "error")
            generations = [one for one, good in zip(generations, finite, strict=True) if good]
            logits = logits[torch.tensor(finite)]
            if not generations:
                return
        # A head may have more rows than the tokenizer has tokens. They are excluded, not cut off, so that the padding
        # does not change what a seed draws.
        drawable = logits.masked_fill(torch.arange(logits.shape[1]) >= vocabulary, -torch.inf)
        tokens = sample(drawable, [one.sampling for one in generations], [one.generator for one in generations])
        for generation, token, row in zip(generations, tokens, torch.split(logits[:, :vocabulary], 1), strict=True):
            count = generation.sampling.logprobs
            self._emit(generation, token, None if count is None else logprobs(row, [token], count)[0])

    def _emit(self, generation: Generation, token: int, scores: TokenLogprobs | None) -> None:
        now = time.monotonic()
        if generation.generated == 0:
            self._observer.first_token(now - generation.submitted)
        else:
            self._observer.next_token(now - generation.latest)
        generation.latest, generation.pending = now, token
        if token in self._end_tokens:
            self._end(generation, "stop")
            return
        generation.generated += 1
        offset = generation.stream.decoded_characters
        text = generation.stream.push(token)
        event = Event(text, token, offset, scores, self._prompt_logprobs(generation))
        if generation.stream.stopped:
            self._end(generation, "stop", event)
        elif generation.generated == generation.sampling.max_tokens:
            self._end(generation, "length", event)
        else:
            generation.deliver(event)

    def _end(self, generation: Generation, reason: FinishReason, event: Event | None = None) -> None:
        """Release a generation's slot and deliver its last event."""
        last = event or Event(
            offset=generation.stream.decoded_characters, prompt_logprobs=self._prompt_logprobs(generation)
        )
        rest = generation.stream.finish()
        if generation.stream.stopped:
            reason = "stop"
        with self._changed:
            if generation.slot >= 0:
                self._batch.release(generation.slot)
                self._free.append(generation.slot)
                self._running.remove(generation)
            self._count()
        self._observer.finished(reason, generation.generated, time.monotonic() - generation.submitted)
        generation.deliver(
            Event(last.text + rest, last.token, last.offset, last.logprobs, last.prompt_logprobs, finish_reason=reason)
        )

    def _prompt_logprobs(self, generation: Generation) -> tuple[TokenLogprobs, ...] | None:
        if not generation.prompt_logprobs or generation.generated > 1:
            return None
        return tuple(generation.prompt_logprobs)

    def _count(self) -> None:
        self._observer.load(len(self._running), len(self._waiting), self._batch.slots)
