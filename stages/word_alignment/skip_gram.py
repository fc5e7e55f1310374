"""Word vectors by skip-gram with negative sampling (Mikolov et al. 2013, arXiv 1310.4546), computed by gensim.

Windows of a few words tell more about a word than whole pages do, but need many times more text before the spaces of
two languages have the same shape (docs/word_alignment.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from stages.base import StageError
from stages.word_alignment.linear import Array
from stages.word_alignment.page_vectors import frequent_words

WINDOW_WORDS = 5
NEGATIVE_SAMPLES = 10

Pages = Callable[[], Iterator[list[str]]]


@dataclass(frozen=True)
class _Sentences:
    """The known words of each page. gensim iterates over them once for the vocabulary and once for each epoch."""

    pages: Pages
    known: frozenset[str]

    def __iter__(self) -> Iterator[list[str]]:
        for page in self.pages():
            if kept := [word for word in page if word in self.known]:
                yield kept


def train(
    pages: Pages, vocabulary: int, dimensions: int, min_pages: int, epochs: int, seed: int
) -> tuple[list[str], Array]:
    """The words in the order of their frequency, and their vectors [words, dimensions] in float32.

    pages: gives all pages of the text, at each call.

    The words are those of `page_vectors.frequent_words`. One thread computes, so that a seed has one result. Raises
    StageError if no word remains.
    """
    from gensim.models import Word2Vec

    words = frequent_words(pages(), vocabulary, min_pages)
    if not words:
        raise StageError(f"the text has no word that is on {min_pages} pages or more: give a longer text")
    model = Word2Vec(
        _Sentences(pages, frozenset(words)),
        vector_size=dimensions,
        window=WINDOW_WORDS,
        sg=1,
        negative=NEGATIVE_SAMPLES,
        min_count=1,  # rare words are left out already
        epochs=epochs,
        seed=seed,
        workers=1,
    )
    return words, np.asarray(model.wv[words], np.float32)
