"""The n-gram baseline knows the training text, and the end of a document costs bits."""

from __future__ import annotations

import pytest

from stages.artifacts.byte_ngrams import ExactCounts, bits
from stages.evaluation.ngram_baseline import NgramBaseline


def test_documents_are_counted_and_scored_with_their_end() -> None:
    documents = [b"abab", b"abc", b"", b"ba\xff"]
    baseline = NgramBaseline(3, documents)
    ended = [document + b"\0" for document in documents]
    assert baseline.train_bytes == sum(map(len, ended))
    assert baseline.document_bits(b"abca") == bits(ExactCounts(3, ended), b"abca\0")
    assert baseline.document_bits(b"abca", whole=False) == bits(ExactCounts(3, ended), b"abca")


def test_text_like_the_training_text_is_cheap() -> None:
    model = NgramBaseline(5, [b"the cat sat on the mat. " * 20])
    assert model.document_bits(b"the cat sat on the mat.") < 30
    assert model.document_bits(b"zqx jkv wpy zqx jkv wpy") > 150


def test_the_end_of_a_whole_document_costs_bits() -> None:
    model = NgramBaseline(3, [b"abc", b"abd"])
    assert model.document_bits(b"abc") > model.document_bits(b"abc", whole=False)


def test_documents_do_not_leak_into_each_other() -> None:
    together, reversed_ = (NgramBaseline(4, documents) for documents in ([b"abc", b"xyz"], [b"xyz", b"abc"]))
    assert together.document_bits(b"abcxyz") == reversed_.document_bits(b"abcxyz")


@pytest.mark.parametrize("order", [0, 9])
def test_orders_that_do_not_fit_are_refused(order: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 8"):
        NgramBaseline(order, [])
