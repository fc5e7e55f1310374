"""The generation engine: what runs at each step.

One worker thread owns the model. Each step takes up waiting sequences while there are free slots, reads a bounded piece
of the prompts that are not read yet, and gives every running sequence its next token in one batched pass: sequences
join and leave the batch at every step (continuous batching, Orca: Yu et al., OSDI 2022). Long prompts are read in
chunks between the steps of the others, so that they do not stop them.

Tokens go out through a `deliver` function called in the worker thread. It must not block and must not raise.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from stages.inference.metrics import Metrics
from stages.inference.sampling import Sampling, TokenLogprobs, logprobs, sample
from stages.inference.text import TextStream

FinishReason = Literal["stop", "length", "cancelled", "error"]

log = logging.getLogger(__name__)


class Batch(Protocol):
    """A model with the sequences that it is writing, each in a slot that holds its keys and values."""

    slots: int

    def read(self, slot: int, tokens: Sequence[int], *, every: bool) -> Tensor:
        """Read the next tokens of a slot's sequence. Logits [1 (or all, if `every`), vocabulary]."""

    def step(self, tokens: dict[int, int]) -> Tensor:
        """Read one token (by slot) of each sequence. Logits [sequences, vocabulary], in the order given."""

    def release(self, slot: int) -> None:
        """Forget a slot's sequence."""


class OverloadedError(Exception):
    """As many sequences are running and waiting as may be."""


class ClosedError(Exception):
    """The engine takes no more work."""


@dataclass(frozen=True)
class Event:
    """One token of a sequence, or its end, or both."""

    text: str = ""  # may be shown now
    token: int | None = None
    offset: int = 0  # characters of the completion before this token
    logprobs: TokenLogprobs | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None  # once, with the first event, if asked for
    finish_reason: FinishReason | None = None  # set on the last event, and on it alone


Deliver = Callable[[Event], None]


@dataclass(eq=False)
class Generation:
    """One sequence from its prompt to its end. Only the engine changes it."""

    prompt: tuple[int, ...]  # at least one token
    sampling: Sampling
    deliver: Deliver
    stream: TextStream
    submitted: float = field(default_factory=time.monotonic)
    latest: float = 0.0  # when the latest token went out
    slot: int = -1
    read: int = 0  # tokens of the prompt that the model has read
    generated: int = 0
    pending: int | None = None  # the latest token, not read by the model yet
    cancelled: bool = False
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.generator = self.sampling.generator()
        if self.sampling.prompt_logprobs:
            self.prompt_logprobs.append(TokenLogprobs(None))


class Engine:
    """Runs generations on a batch, at most `batch.slots` at a time, with at most `max_waiting` more waiting."""

    def __init__(
        self,
        batch: Batch,
        table: list[bytes],
        *,
        end_of_sequence: int | None,
        metrics: Metrics,
        max_waiting: int = 64,
        prefill_chunk: int = 256,
        threads: int | None = None,
    ) -> None:
        """`table`: the bytes of each token. `threads`: torch's threads within one operation (None: its default)."""
        self._batch = batch
        self._table = table
        self._end_of_sequence = end_of_sequence
        self._metrics = metrics
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
        """How many generations may run and wait together."""
        return self._batch.slots + self._max_waiting

    @property
    def alive(self) -> bool:
        return self._worker.is_alive()

    def submit(self, requests: Sequence[tuple[Sequence[int], Sampling, Deliver]]) -> list[Generation]:
        """Queue all of the requests (prompt, sampling, deliver), or none. Raises OverloadedError, ClosedError."""
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
        """End generations before the next step; those that ended already stay as they are."""
        with self._changed:
            for generation in generations:
                generation.cancelled = True
            self._changed.notify()

    def close(self) -> None:
        """Cancel everything and end the worker."""
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
                        # Whatever went wrong (memory, say) must not take the other requests down with the engine.
                        running = list(self._running)
                        log.exception("a generation step failed; its %d sequences end with an error", len(running))
                        for generation in running:
                            self._end(generation, "error")
        except BaseException:
            log.exception("the generation engine failed, and takes no more work")
            self._give_up()

    def _give_up(self) -> None:
        """Tell all who wait that nothing will come. The model may be in any state: its slots are left alone."""
        with self._changed:
            self._closing = True
            left = [*self._running, *self._waiting]
            self._running.clear()
            self._waiting.clear()
        for generation in left:
            generation.deliver(Event(finish_reason="error"))

    def _schedule(self) -> bool:
        """Wait for work, drop the cancelled, fill the free slots. False once closed and empty."""
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
                self._metrics.queued(time.monotonic() - generation.submitted)
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
        """Read a chunk of a prompt; at its end, give the first token. Returns how many tokens were read."""
        sampling, start = generation.sampling, generation.read
        chunk = generation.prompt[start : start + self._prefill_chunk]
        logits = self._batch.read(generation.slot, chunk, every=sampling.prompt_logprobs)
        generation.read += len(chunk)
        if sampling.prompt_logprobs:
            following = list(generation.prompt[start + 1 : generation.read + 1])
            if following:
                predicted = logprobs(logits[: len(following)], following, sampling.logprobs or 0)
                generation.prompt_logprobs.extend(predicted)
        if generation.read == len(generation.prompt):
            self._metrics.prompt_tokens(len(generation.prompt))
            if sampling.max_tokens == 0:
                self._end(generation, "length")
            else:
                self._advance([generation], logits[-1:])
        return len(chunk)

    def _advance(self, generations: list[Generation], logits: Tensor) -> None:
        """Give each generation its next token. `logits`: [generations, vocabulary]."""
        logits = logits[:, : len(self._table)].float()  # a head may be padded beyond the tokenizer's vocabulary
        finite = logits.isfinite().all(dim=-1).tolist()
        if not all(finite):
            log.error("the model gave logits that are not finite")
            for generation in [one for one, good in zip(generations, finite, strict=True) if not good]:
                self._end(generation, "error")
            generations = [one for one, good in zip(generations, finite, strict=True) if good]
            logits = logits[torch.tensor(finite)]
            if not generations:
                return
        tokens = sample(logits, [one.sampling for one in generations], [one.generator for one in generations])
        for row, (generation, token) in enumerate(zip(generations, tokens, strict=True)):
            count = generation.sampling.logprobs
            self._emit(generation, token, None if count is None else logprobs(logits[row : row + 1], [token], count)[0])

    def _emit(self, generation: Generation, token: int, scores: TokenLogprobs | None) -> None:
        now = time.monotonic()
        if generation.generated == 0:
            self._metrics.first_token(now - generation.submitted)
        else:
            self._metrics.next_token(now - generation.latest)
        generation.latest, generation.pending = now, token
        if token == self._end_of_sequence:
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
        """The last event of a generation, and its slot given back."""
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
        self._metrics.finished(reason, generation.generated, time.monotonic() - generation.submitted)
        generation.deliver(
            Event(last.text + rest, last.token, last.offset, last.logprobs, last.prompt_logprobs, finish_reason=reason)
        )

    def _prompt_logprobs(self, generation: Generation) -> tuple[TokenLogprobs, ...] | None:
        if not generation.prompt_logprobs or generation.generated > 1:
            return None
        return tuple(generation.prompt_logprobs)

    def _count(self) -> None:
        self._metrics.load(len(self._running), len(self._waiting), self._batch.slots)
