"""Families are the same whether one process finds them or many, in whatever order the work is finished."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.deduplication import families
from stages.corpus.deduplication.families import ConnectedComponents
from tests.stages.corpus.deduplication.support import drafts_of, index_of
from tests.stages.corpus.deduplication.test_memory import decider_of, decision_of
from tests.stages.corpus.examples import prose


def similar_texts(count: int) -> list[str]:
    draw = random.Random(1)
    texts = []
    for number in range(count):
        words = prose(number // 3, 60).split()
        words[draw.randrange(len(words))] = f"other{number}"
        texts.append(" ".join(words))
    return texts


@pytest.mark.parametrize(
    "rule", [{"rule": "near", "bands": 8, "rows": 3}, {"rule": "simhash", "max_distance": 6, "blocks": 8}]
)
def test_the_order_and_the_division_of_the_work_change_nothing(
    tmp_path: Path, rule: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = similar_texts(300)
    index = index_of(texts, 5)
    kept = np.ones(len(texts), bool)
    (tmp_path / "one").mkdir()
    expected = decision_of(decider_of(rule, drafts_of(texts, index, tmp_path / "one", 1 << 20)), index, kept)
    assert len(expected[0]) > 7
    monkeypatch.setattr(families, "PAIRS", 7)
    done: list[str] = []

    def shuffled(phase: str, function: Callable[[Any], Mapping[str, Any]], work: Sequence[Any], spread: bool) -> None:
        for item in random.Random(len(done)).sample(list(work), len(work)):
            function(item)
            done.append(phase)

    (tmp_path / "many").mkdir()
    drafts = replace(drafts_of(texts, index, tmp_path / "many", 1 << 20), map_work=shuffled)
    assert decision_of(decider_of(rule, drafts), index, kept) == expected
    assert {phase.partition(": ")[2] for phase in done} == {"comparing", "measuring"}
    assert len(done) > 20


def test_work_on_other_documents_is_not_taken_for_this(tmp_path: Path) -> None:
    texts = similar_texts(90)
    index = index_of(texts, 3)
    drafts = drafts_of(texts, index, tmp_path, 1 << 20)
    rule = {"rule": "near"}
    every = np.ones(len(texts), bool)
    all_of_them = decision_of(decider_of(rule, drafts), index, every)
    half = decision_of(decider_of(rule, drafts), index, every & (np.arange(len(texts)) % 2 > 0))
    assert half != all_of_them
    assert decision_of(decider_of(rule, drafts), index, every) == all_of_them


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60), st.integers(1, 6))
def test_components_of_parts_are_those_of_the_whole(pairs: list[tuple[int, int]], parts: int) -> None:
    whole, merged = ConnectedComponents(31), ConnectedComponents(31)
    one, other = np.array(pairs, np.int64).reshape(-1, 2).T
    whole.add(one, other)
    for part in reversed(range(parts)):
        alone = ConnectedComponents(31)
        alone.add(one[part::parts], other[part::parts])
        connected = np.flatnonzero(alone.labels != np.arange(31))
        merged.add(connected, alone.labels[connected])
    assert merged.labels.tolist() == whole.labels.tolist()
