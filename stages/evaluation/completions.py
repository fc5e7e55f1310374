"""Completions of an evaluation's prompts: a greedy one of each, then a sampled one of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokenizers import Tokenizer as LoadedTokenizer

from stages.artifacts.document_start import document_start
from stages.artifacts.encoding import encode
from stages.artifacts.evaluation_report import Completion
from stages.inference.generate import generate
from stages.inference.sampling import Sampling
from stages.model.decoder import Decoder


def complete(
    model: Decoder,
    tokenizer: LoadedTokenizer,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    temperatures: Sequence[float] = (0.0,),
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Completion, ...]:
    """A completion of every prompt at every temperature (0: greedy), by temperature and then by prompt.

    Each prompt begins a document. Of a prompt that is too long for the context, the end is used.
    Raises ValueError if `max_tokens` leaves no space for a prompt.
    """
    start = document_start(model.config, tokenizer)
    space = model.config.context_length - max_tokens - len(start)
    if space < 1:
        raise ValueError(
            f"max_tokens {max_tokens} leaves no space for a prompt in a context of {model.config.context_length} tokens"
        )
    wanted = [(prompt, temperature) for temperature in temperatures for prompt in prompts]
    # One sequence at a time, and each prompt in one pass: the rounding of a batched pass depends on what else is in
    # the batch, and the completions of a fingerprint are to be the same in every version.
    found = generate(
        model,
        [[*start, *encode(tokenizer, prompt)[-space:]] for prompt, _ in wanted],
        tokenizer,
        [Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed) for _, temperature in wanted],
        slots=1,
        prefill_chunk=model.config.context_length,
        progress=progress,
    )
    return tuple(
        Completion(prompt=prompt, text=one.text, temperature=temperature, tokens=len(one.tokens))
        for (prompt, temperature), one in zip(wanted, found, strict=True)
    )
