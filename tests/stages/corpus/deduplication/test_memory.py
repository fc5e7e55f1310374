"""Every rule makes the same decisions within any memory limit, and needs no more memory for a larger corpus."""

from __future__ import annotations

import gc
import random
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from stages.corpus.deduplication.exact import LetterKeys
from stages.corpus.deduplication.minhash import MinHash
from stages.corpus.deduplication.registry import AnyRule
from stages.corpus.deduplication.same_address import Addresses
from stages.corpus.deduplication.simhash import SimHash
from stages.corpus.deduplication.substrings import ConcatenatedTexts
from stages.corpus.deduplication.template_lines import LineHashes
from stages.corpus.ingestion import spill
from stages.corpus.ingestion.decontamination import Decontaminate
from stages.corpus.ingestion.document_index import DocumentIndex
from stages.corpus.ingestion.drafts import Drafts, Measure
from stages.corpus.ingestion.rule_decision import Decider
from stages.corpus.ingestion.validation_split import LanguageLabels
from tests.stages.corpus.deduplication.support import drafts_of, index_of
from tests.stages.corpus.examples import prose

RULES: tuple[dict[str, Any], ...] = (
    {"rule": "exact"},
    {"rule": "exact", "ignore": "digits_and_punctuation"},
    {"rule": "url"},
    {"rule": "simhash"},
    {"rule": "near", "bands": 4, "rows": 2},
    {"rule": "lines", "min_count": 2},
    {"rule": "substrings", "min_bytes": 20},
)
NAMES = [rule["rule"] + ("" if len(rule) == 1 else f"-{list(rule.values())[1]}") for rule in RULES]


def decider_of(rule: dict[str, Any], drafts: Drafts) -> Decider:
    found: Any = TypeAdapter(AnyRule).validate_python(rule)
    decider: Decider = found.decider(drafts)
    return decider


def decision_of(decider: Decider, index: DocumentIndex, kept: np.ndarray) -> list[Any]:
    """What a rule decides, sorted by row."""
    decision = decider(index, kept)
    order = np.argsort(decision.rows)
    found: list[Any] = [decision.rows[order].tolist(), list(decision.values(order))]
    if decision.cuts is not None:
        found.append([column.tolist() for column in (decision.cuts.rows, decision.cuts.starts, decision.cuts.stops)])
    if decision.families is not None:
        families = decision.families
        columns = (families.rows, families.first, families.similarity)
        found.append(sorted(zip(*(column.tolist() for column in columns), strict=True)))
    return found


line = st.text(alphabet="ab1. é", max_size=12) | st.sampled_from(["the menu of every page here", "one two three four"])


@settings(max_examples=8)
@given(
    texts=st.lists(st.lists(line, min_size=1, max_size=4).map("\n".join), min_size=1, max_size=30),
    fewest=st.sampled_from((1, 6, 40)),
    seed=st.integers(0, 3),
)
def test_little_memory_decides_as_much_does(texts: list[str], fewest: int, seed: int) -> None:
    index = index_of(texts, shards=3)
    kept = np.array([random.Random(seed * 1000 + number).random() < 0.8 for number in range(len(texts))])
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        drafts = [drafts_of(texts, index, Path(folder), memory_bytes) for memory_bytes in (1 << 30, 1)]
        task = Path(folder) / "quiz.txt"
        task.write_text("one two three four one two")
        sets = Decontaminate(tasks={"quiz": {"paths": [str(task)]}}, words=5)
        makers = [lambda given, rule=rule: decider_of(rule, given) for rule in RULES] + [sets.decider]
        expected = [decision_of(make(drafts[0]), index, kept) for make in makers]
        patch.setattr(spill, "FEWEST_RECORDS", fewest)
        patch.setattr("stages.corpus.ingestion.decontamination.HITS_AT_A_TIME", 2)
        assert [decision_of(make(drafts[1]), index, kept) for make in makers] == expected


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_a_larger_corpus_takes_more_memory_only_for_its_documents(
    rule: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times the documents: no more than 100 bytes for each of them, and nothing for their texts."""
    # Where every byte may begin a passage there are fewer documents, and longer ones.
    fewest, documents, words = (1 << 11, 12, 60) if rule["rule"] == "substrings" else (1 << 9, 1000, 5)
    monkeypatch.setattr(spill, "FEWEST_RECORDS", fewest)
    monkeypatch.setattr("stages.corpus.deduplication.substrings.COMPARED", 1 << 11)
    monkeypatch.setattr("stages.corpus.deduplication.passages.CHUNK_BYTES", 1 << 11)
    peaks, counts = [], []
    for times in (1, 4):
        texts = [
            f"{prose(number % 40, words)} word{number}\n{prose(number % 7, words)}"
            for number in range(times * documents)
        ]
        index = index_of(texts, shards=2)
        index.table["key_high"] = np.arange(len(texts)) * 7919 % len(texts) // 2
        folder = tmp_path / str(times)
        folder.mkdir()
        decider = decider_of(rule, drafts_of(texts, index, folder, memory_bytes=1))
        counts.append(len(texts))
        del texts
        gc.collect()
        if times == 1:
            decider(index, np.ones(len(index), bool))  # what is made once is there
        tracemalloc.start()
        decision = decider(index, np.ones(len(index), bool))
        cuts = 24 * len(decision.cuts.rows) if decision.cuts else 0  # what is found is held
        peaks.append(tracemalloc.get_traced_memory()[1] - 6 * cuts)
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 100 * (counts[1] - counts[0]) + 0.5 * peaks[0], peaks


MEASURES: dict[str, Measure] = {
    "near": MinHash(bands=14, rows=8, shingle_words=5, seed=1, library="rensa"),
    "simhash": SimHash(window_words=6),
    "lines": LineHashes(min_characters=3),
    "substrings": ConcatenatedTexts(),
    "url": Addresses(),
    "letters": LetterKeys(),
    "languages": LanguageLabels(),
}


@pytest.mark.parametrize("name", MEASURES)
def test_measuring_a_longer_shard_takes_no_more_memory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times the documents in one shard, which may be one compressed file: less than 16 bytes more for each."""
    monkeypatch.setattr("stages.corpus.deduplication.minhash.TRANSPOSED", 100)
    texts = [f"{prose(number, 12)}\n{prose(number % 7, 5)}" for number in range(200)]
    columns = {"text": texts, "url": ["http://a.org/b"] * len(texts), "language": ["en"] * len(texts)}
    batch = pa.record_batch(columns)
    peaks: list[int] = []
    for times in (4, 4, 16):  # the first time, what is made once
        folder = tmp_path / f"{len(peaks)}"
        folder.mkdir()
        gc.collect()
        tracemalloc.start()
        MEASURES[name].measure(iter([batch] * times), folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.1 * peaks[1] + 16 * 12 * len(texts), peaks
