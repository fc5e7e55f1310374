"""The n-gram baseline is a proper probability, and its counts are those of the text."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.evaluation.ngram import END, NgramModel

texts = st.binary(max_size=60).map(lambda data: bytes(byte for byte in data if byte))


@settings(max_examples=100)
@given(st.integers(1, 8), st.lists(texts, max_size=4), st.binary(max_size=12))
def test_probabilities_sum_to_one_after_any_context(order: int, documents: list[bytes], context: bytes) -> None:
    p = NgramModel(order, documents).distribution(context)
    assert p.shape == (256,)
    assert (p > 0).all()
    assert p.sum() == pytest.approx(1, abs=1e-12)


def witten_bell(order: int, documents: list[bytes]) -> dict[bytes, Counter[int]]:
    """Counts of what follows each context, by the book."""
    follows: dict[bytes, Counter[int]] = defaultdict(Counter)
    for document in documents:
        padded = bytes(order - 1) + document + END
        for place in range(order - 1, len(padded)):
            for length in range(order):
                follows[padded[place - length : place]][padded[place]] += 1
    return follows


@settings(max_examples=50)
@given(st.integers(1, 5), st.lists(st.sampled_from([b"abab", b"abc", b"", b"ba\xff"]), max_size=4), texts)
def test_document_bits_are_those_of_the_definition(order: int, documents: list[bytes], held_out: bytes) -> None:
    follows = witten_bell(order, documents)

    def p(byte: int, context: bytes) -> float:
        shorter = p(byte, context[1:]) if context else 1 / 256
        seen = follows.get(context, Counter())
        return (seen[byte] + len(seen) * shorter) / (seen.total() + len(seen)) if seen else shorter

    padded = bytes(order - 1) + held_out + END
    expected = -sum(
        np.log2(p(padded[place], padded[place - order + 1 : place])) for place in range(order - 1, len(padded))
    )
    assert NgramModel(order, documents).document_bits(held_out) == pytest.approx(expected)


def test_text_like_the_training_text_is_cheap() -> None:
    model = NgramModel(5, [b"the cat sat on the mat. " * 20])
    assert model.document_bits(b"the cat sat on the mat.") < 30
    assert model.document_bits(b"zqx jkv wpy zqx jkv wpy") > 150


def test_the_end_of_a_whole_document_costs_bits() -> None:
    model = NgramModel(3, [b"abc", b"abd"])
    assert model.document_bits(b"abc") > model.document_bits(b"abc", whole=False)


def test_documents_do_not_leak_into_each_other() -> None:
    together, reversed_ = (NgramModel(4, documents) for documents in ([b"abc", b"xyz"], [b"xyz", b"abc"]))
    assert together.document_bits(b"abcxyz") == reversed_.document_bits(b"abcxyz")


@pytest.mark.parametrize("order", [0, 9])
def test_orders_that_do_not_fit_are_refused(order: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 8"):
        NgramModel(order, [])
