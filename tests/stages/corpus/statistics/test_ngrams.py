"""Hashed counts of bytes give the bits of the exact model, and perplexity is per word."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.corpus.statistics.ngrams import HashedNgrams, perplexity
from stages.evaluation.ngram import NgramModel as ExactModel

texts = st.binary(max_size=60).map(lambda data: bytes(byte for byte in data if byte))


@settings(max_examples=40)
@given(st.integers(1, 5), st.lists(texts, min_size=1, max_size=4), texts)
def test_bits_are_those_of_the_exact_model(order: int, documents: list[bytes], held_out: bytes) -> None:
    hashed = HashedNgrams(order, 18)
    hashed.add([document + b"\0" for document in documents])  # the exact model counts the end of each as well
    exact = ExactModel(order, documents).document_bits(held_out, whole=False)
    assert hashed.bits(held_out) == pytest.approx(exact)


def test_a_long_document_is_judged_in_pieces_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"the cat sat on the mat, and the dog sat on the cat. " * 20

    def bits() -> float:
        model = HashedNgrams(5, 18)
        model.add([text])
        return model.bits(text[7:])

    whole = bits()
    monkeypatch.setattr("stages.corpus.statistics.ngrams.CHUNK_BYTES", 64)
    assert bits() == pytest.approx(whole)


def test_perplexity_is_per_word_and_line_and_per_character_without_spaces() -> None:
    model = HashedNgrams(3, 16)
    model.add([b"one two three " * 50, "我们是学生。".encode() * 50])
    bits = model.bits(b"one two\nthree")
    assert perplexity(model, "one two\nthree") == pytest.approx(2 ** (bits / 5))
    chinese = "我们是"
    assert perplexity(model, chinese) == pytest.approx(2 ** (model.bits(chinese.encode()) / (3 + 1 + 1)))
    assert perplexity(model, "") == 1
    assert np.isfinite(perplexity(model, "\ud800" * 10_000))
