"""What a corpus's fingerprint depends on: content and operations in their order, never how or where it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.fingerprint import fingerprint, payload
from pipelines.graph import build
from stages.corpus.operations.size import Words
from stages.corpus.source import Source
from tests.stages.corpus.examples import prose, source, write_lines

OPERATIONS = [{"operation": "words", "minimum": 5}, {"operation": "normalise"}]


def identity(values: Mapping[str, Any]) -> str:
    step = build("p", {"corpus": {"stage": "corpus", **values}}).steps["corpus"]
    return fingerprint(payload(step, {}, lambda path: hashlib.sha256(path.read_bytes()).hexdigest()))


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    path = write_lines(tmp_path / "here" / "in.jsonl", [{"text": prose(0)}])
    return {"sources": {"a": source(path, operations=OPERATIONS)}}


@pytest.mark.parametrize(
    "changed",
    [
        {"operations": OPERATIONS[:1]},
        {"operations": OPERATIONS[::-1]},
        {"operations": [{"operation": "words", "minimum": 6}, OPERATIONS[1]]},
        {"rank": 1},
        {"license": "MIT"},
        {"reader": {"kind": "files", "text_field": "body"}},
    ],
)
def test_settings_that_change_the_result_are_part_of_the_identity(
    values: dict[str, Any], changed: dict[str, Any]
) -> None:
    before = values["sources"]["a"]
    if "reader" in changed:
        changed = {"reader": {**before["reader"], **changed["reader"]}}
    assert identity({"sources": {"a": {**before, **changed}}}) != identity(values)
    assert identity({"sources": {"b": before}}) != identity(values)


def test_how_and_where_it_runs_is_not_part_of_the_identity(values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "here").rename(tmp_path / "there")
    moved = {"sources": {"a": source(tmp_path / "there" / "in.jsonl", operations=OPERATIONS)}}
    write_lines(tmp_path / "here" / "in.jsonl", [{"text": prose(0)}])
    assert identity(moved) == identity(values)
    assert identity({**values, "workers": 7, "worker": {"cpus": 2}}) == identity(values)
    write_lines(tmp_path / "here" / "in.jsonl", [{"text": prose(1)}])
    assert identity(moved) != identity(values)


def test_other_code_of_an_operation_is_another_corpus(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    before, chain = identity(values), Source.model_validate(values["sources"]["a"]).chain()
    monkeypatch.setattr(Words, "version", "another")
    assert identity(values) != before
    assert Source.model_validate(values["sources"]["a"]).chain() != chain


def test_a_chain_holds_the_content_that_it_names_and_no_path(tmp_path: Path) -> None:
    chains, facts = [], []
    for place, text in (("one", "x.org"), ("two", "x.org"), ("three", "y.org")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "list.txt").write_text(text)
        listed = {"operation": "removals", "listed": {"path": tmp_path / place / "list.txt"}}
        made = Source.model_validate({"reader": {"kind": "installed"}, "operations": [listed]})
        chains.append(made.chain())
        facts.append(made.facts().model_dump_json())
    assert chains[0] == chains[1] != chains[2]
    assert str(tmp_path) not in facts[0]
