"""The byte n-gram estimate is a proper probability and follows its definition, over exact and over hashed counts."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.artifacts.byte_ngrams import TABLES, ExactCounts, GramCounts, HashedCounts, bits, probabilities

texts = st.binary(max_size=60)


def distribution(counts: GramCounts, context: bytes) -> np.ndarray:
    """The probability of each of the 256 bytes after a context."""
    known = context[-(counts.order - 1) :] if counts.order > 1 else b""
    grams = np.uint64(int.from_bytes(known, "big") << 8) + np.arange(256, dtype=np.uint64)
    return probabilities(counts, grams)


@settings(max_examples=100)
@given(st.integers(1, 8), st.lists(texts, max_size=4), st.binary(max_size=12))
def test_probabilities_sum_to_one_after_any_context(order: int, documents: list[bytes], context: bytes) -> None:
    p = distribution(ExactCounts(order, documents), context)
    assert p.shape == (256,)
    assert (p > 0).all()
    assert p.sum() == pytest.approx(1, abs=1e-12)


def counted(order: int, documents: list[bytes]) -> dict[bytes, Counter[int]]:
    """How often each byte follows each context, counted one by one."""
    follows: dict[bytes, Counter[int]] = defaultdict(Counter)
    for document in documents:
        padded = bytes(order - 1) + document
        for place in range(order - 1, len(padded)):
            for length in range(order):
                follows[padded[place - length : place]][padded[place]] += 1
    return follows


@settings(max_examples=50)
@given(st.integers(1, 5), st.lists(st.sampled_from([b"abab", b"abc", b"", b"ba\xff"]), max_size=4), texts)
def test_bits_follow_the_definition(order: int, documents: list[bytes], held_out: bytes) -> None:
    follows = counted(order, documents)

    def p(byte: int, context: bytes) -> float:
        shorter = p(byte, context[1:]) if context else 1 / 256
        seen = follows.get(context, Counter())
        return (seen[byte] + len(seen) * shorter) / (seen.total() + len(seen)) if seen else shorter

    padded = bytes(order - 1) + held_out
    expected = -sum(
        np.log2(p(padded[place], padded[place - order + 1 : place])) for place in range(order - 1, len(padded))
    )
    assert bits(ExactCounts(order, documents), held_out) == pytest.approx(expected)


@settings(max_examples=40)
@given(st.integers(1, 5), st.lists(texts, min_size=1, max_size=4), texts)
def test_hashed_counts_give_the_bits_of_exact_counts(order: int, documents: list[bytes], held_out: bytes) -> None:
    hashed = HashedCounts(order, 18)
    assert hashed.add(documents) == sum(map(len, documents))
    assert bits(hashed, held_out) == pytest.approx(bits(ExactCounts(order, documents), held_out))


def test_full_tables_still_give_positive_probabilities() -> None:
    hashed = HashedCounts(5, 4)
    hashed.add([b"the cat sat on the mat, and the dog sat on the cat."])
    p = distribution(hashed, b"the ")
    assert (p > 0).all()
    assert (p <= 1).all()


def test_the_number_of_bytes_at_a_time_does_not_change_the_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"the cat sat on the mat, and the dog sat on the cat. " * 20
    whole = HashedCounts(5, 18)
    whole.add([text])
    monkeypatch.setattr("stages.artifacts.byte_ngrams.CHUNK_BYTES", 64)
    in_chunks = HashedCounts(5, 18)
    in_chunks.add([text])
    assert bits(in_chunks, text[7:], 64) == pytest.approx(bits(whole, text[7:]))


def test_tables_of_another_instance_are_taken_over() -> None:
    first = HashedCounts(3, 12)
    first.add([b"abcabcabd"])
    assert bits(HashedCounts(3, 12, first.tables), b"abc") == bits(first, b"abc")
    for order, table_bits, missing in ((2, 12, ""), (3, 11, ""), (3, 12, "types")):
        tables = {name: first.tables[name] for name in TABLES if name != missing}
        with pytest.raises(ValueError, match="expected counts, totals, types of uint32"):
            HashedCounts(order, table_bits, tables)


@pytest.mark.parametrize("order", [0, 9])
def test_an_order_that_does_not_fit_is_refused(order: int) -> None:
    for build in (lambda: ExactCounts(order, []), lambda: HashedCounts(order, 8)):
        with pytest.raises(ValueError, match="expected 1 to 8"):
            build()
