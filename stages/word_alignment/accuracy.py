"""Bilingual lexicon induction: how often a translation is among the best words under CSLS."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stages.csls import densities, ranks
from stages.word_alignment.lexicon_report import Accuracy
from stages.word_alignment.linear import Array
from stages.word_alignment.settings import NEIGHBOURS


def accuracy(
    queries: Array, keys: Array, known: Mapping[int, frozenset[int]], known_densities: tuple[Array, Array] | None = None
) -> Accuracy:
    """Of the queries in `known` (their index -> the indices of their translations), among all keys.

    `known_densities`: of all queries and of all keys, where they have been computed before.
    """
    query_densities, key_densities = known_densities or densities(queries, keys, NEIGHBOURS)
    places = np.array(list(known))
    correct = np.array([(row, key) for row, translations in enumerate(known.values()) for key in translations])
    found = ranks(queries[places], keys, query_densities[places], key_densities, correct)
    return Accuracy(
        queries=len(found),
        p_at_1=float((found <= 1).mean()),
        p_at_5=float((found <= 5).mean()),
        mrr=float((1 / found).mean()),
    )
