"""From logits to the next token of each sequence.

A sequence draws one uniform number per token from its own generator and reads the token off the cumulative
distribution, so a seed gives the same text whatever else is in the batch.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How one sequence is sampled, and when it ends."""

    max_tokens: int = 16
    temperature: float = 1.0  # 0: the most likely token, always
    top_p: float = 1.0  # keep the most likely tokens whose probabilities reach this sum
    top_k: int = 0  # keep that many most likely tokens; 0: all
    seed: int | None = None  # None: different every time
    stop: tuple[str, ...] = ()
    logprobs: int | None = None  # log probabilities of each token and of that many most likely ones; None: none
    prompt_logprobs: bool = False  # those of the prompt's tokens too

    def generator(self) -> random.Random:
        # Python's generator takes a number without its sign: -1 and 1 would be one seed.
        return random.Random(None if self.seed is None else self.seed % 2**64)


@dataclass(frozen=True)
class TokenLogprobs:
    """The log probability (natural, of the unmodified distribution) of one token, and the most likely tokens'."""

    chosen: float | None  # None for the first token of a prompt: nothing precedes it
    top: tuple[tuple[int, float], ...] = ()  # (token, log probability), most likely first


def sample(logits: Tensor, samplings: list[Sampling], generators: list[random.Random]) -> list[int]:
    """The next token of each sequence. `logits`: [sequences, vocabulary]."""
    greedy = logits.argmax(dim=-1).tolist()
    return [
        token if sampling.temperature == 0 else _draw(row, sampling, generator.random())
        for token, row, sampling, generator in zip(greedy, logits, samplings, generators, strict=True)
    ]


def _draw(logits: Tensor, sampling: Sampling, uniform: float) -> int:
    """The token at `uniform` (in [0, 1)) of the cumulative distribution after temperature, top-k and top-p."""
    # The largest logit is taken away first, so that no temperature, however small, overflows.
    scaled = (logits.double() - logits.max()) / sampling.temperature
    tokens = None
    if 0 < sampling.top_k < len(scaled):
        scaled, tokens = scaled.topk(sampling.top_k)
    probabilities = scaled.softmax(dim=-1)
    if sampling.top_p < 1:
        probabilities, order = _nucleus(probabilities, sampling.top_p)
        tokens = order if tokens is None else tokens[order]
    cumulative = probabilities.cumsum(0)
    index = int(torch.searchsorted(cumulative, uniform * cumulative[-1].item(), right=True))
    index = min(index, len(cumulative) - 1)
    return index if tokens is None else int(tokens[index])


def _nucleus(probabilities: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The most likely tokens (at least one) whose probabilities reach `top_p`: probabilities, tokens."""
    count = 0
    while True:
        # A nucleus is small as a rule, and finding the few largest much cheaper than sorting a vocabulary.
        count = min(max(64, 16 * count), len(probabilities))
        largest, order = probabilities.topk(count)
        before = largest.cumsum(0) - largest
        if count == len(probabilities) or before[-1] + largest[-1] >= top_p:
            kept = before < top_p
            return largest[kept], order[kept]


def logprobs(logits: Tensor, tokens: list[int], count: int) -> list[TokenLogprobs]:
    """The log probabilities of `tokens` and of the `count` most likely. `logits`: [len(tokens), vocabulary]."""
    # JSON has no infinity: OpenAI writes -9999 for the log of nothing.
    distribution = logits.float().log_softmax(dim=-1).clamp(min=-9999.0)
    chosen = distribution[torch.arange(len(tokens)), torch.tensor(tokens)].tolist()
    top = distribution.topk(min(count, distribution.shape[-1]), dim=-1)
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return [
        TokenLogprobs(value, tuple(zip(indices, values, strict=True)))
        for value, (indices, values) in zip(chosen, pairs, strict=True)
    ]
