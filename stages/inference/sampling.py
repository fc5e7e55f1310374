"""From logits to the next token of each sequence.

Every sequence draws from its own generator, so a seed gives the same text whatever else is in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How one sequence is sampled, and when it ends."""

    max_tokens: int = 16
    temperature: float = 1.0  # 0: always the most likely token
    top_p: float = 1.0  # keep the smallest set of most likely tokens whose probabilities reach this sum
    top_k: int = 0  # keep this number of most likely tokens; 0: all
    seed: int | None = None  # None: different every time
    stop: tuple[str, ...] = ()
    logprobs: int | None = None  # report the log probability of each token and this number of alternatives; None: none
    prompt_logprobs: bool = False  # report those of the prompt's tokens too

    def generator(self) -> torch.Generator:
        """A generator in the state that the seed gives."""
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
            return generator
        # torch's CPU generator reads 32 bits of a seed: the upper half of a longer (or negative) seed is mixed in.
        low, high = self.seed & 0xFFFFFFFF, self.seed >> 32 & 0xFFFFFFFF
        return generator.manual_seed((low + high * 0x9E3779B1) & 0xFFFFFFFF)


@dataclass(frozen=True)
class TokenLogprobs:
    """The natural log probability of one token, and those of the most likely tokens, before temperature and top-p."""

    chosen: float | None  # None for the first token of a prompt, which nothing precedes
    top: tuple[tuple[int, float], ...] = ()  # (token, log probability), most likely first


def sample(logits: Tensor, samplings: list[Sampling], generators: list[torch.Generator]) -> list[int]:
    """The next token of each sequence. `logits`: [sequences, vocabulary]; minus infinity excludes a token."""
    greedy: list[int] = logits.argmax(dim=-1).tolist()
    return [
        token if sampling.temperature == 0 else _draw(row, sampling, generator)
        for token, row, sampling, generator in zip(greedy, logits, samplings, generators, strict=True)
    ]


def _draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """A token drawn from the distribution after temperature, top-k and top-p."""
    # The largest logit is subtracted first, in double precision, so that even a tiny temperature cannot overflow.
    scaled = (logits.double() - logits.max()) / sampling.temperature
    tokens = None
    if 0 < sampling.top_k < len(scaled):
        scaled, tokens = scaled.topk(sampling.top_k)
    probabilities = scaled.softmax(dim=-1)
    if sampling.top_p < 1:
        probabilities, order = _nucleus(probabilities, sampling.top_p)
        tokens = order if tokens is None else tokens[order]
    index = int(torch.multinomial(probabilities.float(), 1, generator=generator))
    return index if tokens is None else int(tokens[index])


def _nucleus(probabilities: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The smallest set of most likely tokens whose probabilities reach `top_p`: (probabilities, tokens)."""
    count = 0
    while True:
        # A nucleus is usually small, and finding a few of the largest is much cheaper than sorting a vocabulary.
        count = min(max(64, 16 * count), len(probabilities))
        largest, order = probabilities.topk(count)
        before = largest.cumsum(0) - largest
        if count == len(probabilities) or before[-1] + largest[-1] >= top_p:
            kept = before < top_p
            return largest[kept], order[kept]


def logprobs(logits: Tensor, tokens: list[int], count: int) -> list[TokenLogprobs]:
    """The log probabilities of `tokens` and of the `count` most likely ones. `logits`: [len(tokens), vocabulary]."""
    # JSON has no infinity: OpenAI writes -9999 for the logarithm of 0.
    distribution = logits.float().log_softmax(dim=-1).clamp(min=-9999.0)
    chosen = distribution[torch.arange(len(tokens)), torch.tensor(tokens)].tolist()
    top = distribution.topk(min(count, distribution.shape[-1]), dim=-1)
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return [
        TokenLogprobs(value, tuple(zip(indices, values, strict=True)))
        for value, (indices, values) in zip(chosen, pairs, strict=True)
    ]
