"""The split into training and validation: it depends only on the hash, and can include every language."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.corpus import Corpus
from stages.artifacts.manifest import SPLITS
from stages.corpus.ingest import IngestCorpus
from stages.corpus.ingestion.document_index import SIGNATURE
from stages.corpus.ingestion.validation_split import ValidationSplit
from tests.stages.corpus.examples import all_documents, ingest, prose, source, write_lines

DOCUMENTS = {"en": 400, "fr": 60, "sw": 20, "": 12, "yo": 4}  # by language


def sources(folder: Path) -> dict[str, Any]:
    """Two sources that share every language, in several files."""
    texts = [(language, number) for language, count in DOCUMENTS.items() for number in range(count)]
    records = [
        {"text": prose(1000 * place + number), "language": language} for place, (language, number) in enumerate(texts)
    ]
    return {
        name: source(*(write_lines(folder / f"{name}{part}.jsonl", records[part::4]) for part in parts))
        for name, parts in (("web", (0, 1)), ("books", (2, 3)))
    }


def split_of(corpus: Corpus) -> dict[str, str]:
    """Text -> split."""
    return {document.text: split for split in SPLITS for document in corpus.documents(split)}


def by_language(corpus: Corpus) -> collections.Counter[str]:
    return collections.Counter(document.language for document in corpus.documents("validation"))


def test_every_language_with_enough_documents_is_validated(tmp_path: Path) -> None:
    values = {"sources": sources(tmp_path / "in"), "validation_fraction": 0.02}
    plain = ingest(tmp_path / "plain", **values)[0]
    assert by_language(plain)["fr"] < 6
    wanted = {"validation_documents_per_language": 6, "validation_share_per_language": 0.25}
    corpus = ingest(tmp_path / "wanted", **values, **wanted)[0]
    found = by_language(corpus)
    assert found["en"] == by_language(plain)["en"] >= 6  # the fraction gives enough
    assert (found["fr"], found["sw"], found[""], found["yo"]) == (6, 5, 3, 1)  # a quarter at most
    assert len(all_documents(corpus)) == len(split_of(corpus)) == sum(DOCUMENTS.values())  # no text in both
    validated = {text for text, split in split_of(plain).items() if split == "validation"}
    assert validated <= {text for text, split in split_of(corpus).items() if split == "validation"}


def test_shards_sources_and_their_order_change_nothing(tmp_path: Path) -> None:
    declared = sources(tmp_path / "in")
    files = [path for one in declared.values() for path in one["reader"]["paths"]]
    values = {"validation_fraction": 0.02, "validation_documents_per_language": 6}
    whole = ingest(tmp_path / "a", sources=declared, **values)[0]
    parts = ingest(tmp_path / "b", sources={"all": source(*reversed(files))}, shard_bytes=4000, **values)[0]
    assert len(parts.manifest.shards) > len(whole.manifest.shards)
    assert split_of(whole) == split_of(parts)


def test_a_text_under_two_labels_is_in_one_split(tmp_path: Path) -> None:
    texts = [prose(number) for number in range(40)]
    records = [{"text": text, "language": language} for text in texts for language in ("pt", "gl")]
    records += [
        {"text": prose(number), "language": "pt"} for number in range(100, 200)
    ]  # of pt other ones are smallest
    path = write_lines(tmp_path / "in.jsonl", records)
    values = {"validation_fraction": 0.001, "validation_documents_per_language": 5, "deduplicate": []}
    corpus = ingest(tmp_path, path, **values)[0]
    train, validation = ({document.text for document in corpus.documents(split)} for split in SPLITS)
    assert not train & validation
    assert min(by_language(corpus)["pt"], by_language(corpus)["gl"]) >= 5


def test_documents_that_become_too_short_do_not_count_towards_a_languages_number(tmp_path: Path) -> None:
    """Nine of ten documents contain only menus, which are cut out; the required number is still reached."""
    menu = "One of the lines that are everywhere\nAnd another one that is everywhere, on every page\n"
    records = [
        {"text": f"{menu}no {number}" if number % 10 else menu + prose(number), "language": language}
        for language, first in (("en", 0), ("sw", 1000))
        for number in range(first, first + 200)
    ]
    path = write_lines(tmp_path / "in.jsonl", records)
    values = {"deduplicate": [{"rule": "lines"}], "validation_fraction": 0.001, "min_characters": 60}
    wanted = {"validation_documents_per_language": 8, "validation_share_per_language": 0.5}
    corpus = ingest(tmp_path, path, **values, **wanted)[0]
    assert corpus.manifest.total.dropped["text.too_short"].documents == 2 * 180
    assert by_language(corpus) == {"en": 8, "sw": 8}


@given(
    keys=st.lists(st.integers(0, 30), max_size=60).map(sorted),
    count=st.integers(1, 20),
    share=st.sampled_from((0.1, 0.2, 0.5)),
)
def test_what_is_taken_of_a_language_is_its_smallest_hashes_and_never_more_than_the_share(
    keys: list[int], count: int, share: float
) -> None:
    import numpy as np

    split = ValidationSplit(fraction=0.1, documents_per_language=count, share_per_language=share)
    taken = split._first(np.array(keys, dict(SIGNATURE)["key_low"]).astype("u8")).tolist()
    assert taken == keys[: len(taken)]
    assert len(taken) <= min(count, share * len(keys))
    assert not set(taken) & set(keys[len(taken) :])  # copies of a text stay together
    if len(set(keys)) == len(keys):
        assert len(taken) == min(count, int(share * len(keys)))


@pytest.mark.parametrize("share", [0, 0.6])
def test_a_share_that_leaves_nothing_to_train_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(ValueError, match="validation_share_per_language"):
        IngestCorpus(sources={"files": source(tmp_path)}, validation_share_per_language=share)
