"""Offline generation: prompts in, completions out, by the same engine and sampler that serve requests."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from tokenizers import Tokenizer

from stages.base import StageError
from stages.inference.batch import DecoderBatch
from stages.inference.engine import Engine, Event, FinishReason
from stages.inference.sampling import Sampling, TokenLogprobs
from stages.inference.text import Vocabulary, prompt_tokens
from stages.model.decoder import Decoder

POLL_S = 0.2  # between two calls of `progress` while no sequence ends


@dataclass(frozen=True)
class Generated:
    """One finished sequence."""

    text: str
    tokens: tuple[int, ...]  # without the token that ended the sequence
    finish_reason: FinishReason  # "stop" or "length"
    logprobs: tuple[TokenLogprobs, ...] = ()  # of `tokens`, if asked for
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()  # of the prompt's tokens, if asked for


def generate(
    model: Decoder,
    prompts: Sequence[str | Sequence[int]],
    tokenizer: Tokenizer,
    sampling: Sampling | Sequence[Sampling],
    *,
    slots: int = 8,
    prefill_chunk: int = 256,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Generated]:
    """Complete every prompt; the completions in the order of the prompts.

    prompts: texts, each of which begins a document, or token ids, which the model reads as they are.
    sampling: of all prompts, or one for each. slots: the number of sequences in the running batch.
    prefill_chunk: prompt tokens read between two steps of the running sequences.
    progress: called now and then with the numbers of finished and of all sequences. What it raises ends the generation.

    A seed gives the same text whatever else is in the batch, up to rounding: a batched matrix product can differ from
    a single one in the last bit. Raises ValueError for an empty prompt of tokens or one that does not fit the model's
    context, ArtifactError for stop strings with a tokenizer that is not byte-level, and StageError if the model returns
    logits that are not finite.
    """
    end = model.config.eos_token_id
    samplings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    tokens = [prompt_tokens(tokenizer, one, end) if isinstance(one, str) else list(one) for one in prompts]
    if not tokens:
        return []
    capacity = _capacity(tokens, samplings, model.config.context_length)
    events: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()
    engine = Engine(
        DecoderBatch(model, min(slots, len(tokens)), capacity),
        _table(tokenizer, samplings),
        end_tokens=model.config.end_tokens,
        max_waiting=len(tokens),
        prefill_chunk=prefill_chunk,
        threads=torch.get_num_threads(),
    )
    received: list[list[Event]] = [[] for _ in tokens]
    try:
        engine.submit(
            [
                (prompt, one, partial(_put, events, index))
                for index, (prompt, one) in enumerate(zip(tokens, samplings, strict=True))
            ]
        )
        done = 0
        while done < len(tokens):
            progress(done, len(tokens))
            try:
                index, event = events.get(timeout=POLL_S)
            except queue.Empty:
                continue
            received[index].append(event)
            done += event.finish_reason is not None
            if event.finish_reason in ("error", "cancelled"):
                raise StageError(
                    f"the generation for prompt {index} failed: the model returned logits that are not finite, or a "
                    "step ran out of memory; the log has the cause"
                )
        progress(done, len(tokens))
    finally:
        engine.close()
    return [_generated(tokenizer, one, found) for one, found in zip(samplings, received, strict=True)]


def _put(events: queue.SimpleQueue[tuple[int, Event]], index: int, event: Event) -> None:
    events.put((index, event))


def _capacity(prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling], context_length: int) -> int:
    """The number of tokens of the longest sequence. Raises ValueError if one does not fit the context."""
    longest = 0
    for index, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=True)):
        if not prompt:
            raise ValueError(f"prompt {index} has no tokens")
        length = len(prompt) + sampling.max_tokens
        if length > context_length:
            raise ValueError(
                f"prompt {index} has {len(prompt)} tokens, which with max_tokens={sampling.max_tokens} exceed the "
                f"model's context of {context_length} tokens"
            )
        longest = max(longest, length)
    return longest


def _table(tokenizer: Tokenizer, samplings: Sequence[Sampling]) -> list[bytes]:
    """The bytes of every token, which the engine needs to find stop strings; otherwise one entry for each token."""
    if any(sampling.stop for sampling in samplings):
        return Vocabulary(tokenizer).table
    return [b""] * (max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1)


def _generated(tokenizer: Tokenizer, sampling: Sampling, events: Sequence[Event]) -> Generated:
    tokens = tuple(event.token for event in events if event.token is not None)
    # With stop strings, the engine cut the text; without, any tokenizer can decode it.
    text = "".join(event.text for event in events) if sampling.stop else tokenizer.decode(tokens)
    reason = events[-1].finish_reason
    assert reason is not None
    return Generated(
        text,
        tokens,
        reason,
        tuple(event.logprobs for event in events if event.logprobs is not None),
        next((event.prompt_logprobs for event in events if event.prompt_logprobs is not None), ()),
    )
