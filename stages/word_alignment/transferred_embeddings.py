"""Embeddings for the tokens of another tokenizer, from the embeddings that a model has and from aligned words.

The idea is WECHSEL's (Minixhofer et al. 2022, arXiv 2112.06598): a token of the new language begins as the mean of
tokens that mean the same in the language of the model. Here the translations of whole words carry it over, and the
tokens that write a word receive what it means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.word_alignment.linear import Array

TEMPERATURE = 0.1  # of the softmax over the CSLS of a word's translations


@dataclass(frozen=True)
class Rows:
    """Where each row of the new embedding comes from. `weights` maps a new token to old tokens and their weights."""

    copied: Mapping[int, int]  # tokens that both tokenizers have, by their string: new id -> old id
    weights: Mapping[int, Mapping[int, float]]  # of each, the weights add up to 1
    vocabulary: int  # rows of the new embedding

    @property
    def drawn(self) -> list[int]:
        """The tokens that nothing is known of."""
        return [token for token in range(self.vocabulary) if token not in self.copied and token not in self.weights]


def rows(
    old: Mapping[str, int],
    new: Mapping[str, int],
    word_tokens: Sequence[Sequence[int]],
    translations: Sequence[Sequence[tuple[Sequence[int], float]]],
) -> Rows:
    """Where the rows of an embedding for the vocabulary `new` (token -> id) come from, given a model's, `old`.

    word_tokens: the new tokens of each aligned word of the new language.
    translations: of each of these words, the old tokens of each of its translations, and its CSLS.
    """
    copied = {place: old[token] for token, place in new.items() if token in old}
    summed: dict[int, dict[int, float]] = {}
    for tokens, answers in zip(word_tokens, translations, strict=True):
        scores = np.array([score for _, score in answers])
        shares = np.exp((scores - scores.max()) / TEMPERATURE)
        shares /= shares.sum()
        for token in set(tokens) - copied.keys():
            sums = summed.setdefault(token, {})
            for (written, _), share in zip(answers, shares, strict=True):
                for one in written:  # a word of many tokens says less about each of them
                    sums[one] = sums.get(one, 0.0) + float(share) / len(written) / len(tokens)
    weights = {
        token: {one: value / total for one, value in sorted(sums.items())}
        for token, sums in sorted(summed.items())
        if (total := sum(sums.values())) > 0
    }
    return Rows(copied, weights, max(new.values()) + 1)


def filled(matrix: Array, found: Rows, generator: np.random.Generator) -> Array:
    """The new matrix [found.vocabulary, hidden] in float32, from a model's [old vocabulary, hidden].

    Rows of which nothing is known are drawn from the normal distribution of each column of `matrix`.
    """
    matrix = np.asarray(matrix, np.float32)
    made = np.empty((found.vocabulary, matrix.shape[1]), np.float32)
    for token, one in found.copied.items():
        made[token] = matrix[one]
    for token, weights in found.weights.items():
        made[token] = np.array(list(weights.values()), np.float32) @ matrix[list(weights)]
    drawn = found.drawn
    made[drawn] = matrix.mean(axis=0) + matrix.std(axis=0) * generator.standard_normal((len(drawn), matrix.shape[1]))
    return made
