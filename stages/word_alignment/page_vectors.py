"""Word vectors from the pages that words share: positive pointwise mutual information, and its truncated SVD.

Counts of whole pages, rather than of a window of a few words, give two languages spaces of nearly the same shape even
from half a million words each (docs/word_alignment.md), which alignment without a dictionary needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from stages.base import StageError
from stages.word_alignment.linear import Array

CONTEXT_SMOOTHING = 0.75  # exponent of context counts: less weight for rare contexts (Levy et al. 2015)


def train(pages: Iterable[list[str]], vocabulary: int, dimensions: int, min_pages: int) -> tuple[list[str], Array]:
    """The words in the order of their frequency, and their vectors [words, dimensions] in float32.

    The words are those of `frequent_words`. Raises StageError if fewer words than dimensions remain.
    """
    held: list[list[str]] = []
    words = frequent_words(_distinct(pages, held), vocabulary, min_pages)
    if len(words) <= dimensions:
        raise StageError(
            f"the text has {len(words)} words that are on {min_pages} pages or more, for {dimensions} dimensions: "
            "give a longer text, or lower dimensions or min_pages"
        )
    return words, _vectors(words, held, dimensions)


def frequent_words(pages: Iterable[list[str]], vocabulary: int, min_pages: int) -> list[str]:
    """The `vocabulary` most frequent words that are on at least `min_pages` pages, the most frequent first.

    Words of equal frequency are in alphabetical order.
    """
    frequencies: Counter[str] = Counter()
    page_counts: Counter[str] = Counter()
    for page in pages:
        frequencies.update(page)
        page_counts.update(set(page))
    ordered = sorted(frequencies, key=lambda word: (-frequencies[word], word))
    return [word for word in ordered if page_counts[word] >= min_pages][:vocabulary]


def _distinct(pages: Iterable[list[str]], held: list[list[str]]) -> Iterator[list[str]]:
    """The pages, while the distinct words of each are kept in `held`."""
    for page in pages:
        held.append(sorted(set(page)))
        yield page


def _vectors(words: list[str], pages: list[list[str]], dimensions: int) -> Array:
    """U sqrt(s) of the truncated SVD of the PPMI matrix of words that share a page."""
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import svds

    index = {word: place for place, word in enumerate(words)}
    rows, columns = [], []
    for number, page in enumerate(pages):
        places = [index[word] for word in page if word in index]
        rows += places
        columns += [number] * len(places)
    ones = np.ones(len(rows), np.float64)
    on_page = csr_array((ones, (rows, columns)), shape=(len(words), len(pages)))
    counts = (on_page @ on_page.T).tocoo()
    total = np.asarray(counts.sum(axis=1)).ravel()
    context = total**CONTEXT_SMOOTHING
    context /= context.sum()
    information = np.log(counts.data / total[counts.row] / context[counts.col])
    positive = information > 0
    ppmi = csr_array(
        (information[positive], (counts.row[positive], counts.col[positive])), shape=(len(words), len(words))
    )
    left, values, _ = svds(ppmi, k=dimensions, v0=np.ones(len(words)))
    order = np.argsort(-values)
    return np.asarray((left * np.sqrt(values))[:, order], np.float32)
