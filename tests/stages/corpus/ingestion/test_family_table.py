"""The table of families: its order and the texts that it keeps, whatever the parts, in bounded memory."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.artifacts.corpus import FAMILY_COLUMNS
from stages.corpus.ingestion.family_table import (
    FAMILIES_WITH_TEXT,
    MEMBERS_WITH_TEXT,
    FamilyTexts,
    gather_families,
)
from stages.corpus.ingestion.parquet_files import TableWriter, rows_of


def member(rule: str, family: int, number: int, similarity: float) -> dict[str, Any]:
    name = hashlib.sha256(f"{family} {number}".encode()).hexdigest()[:32]
    first = hashlib.sha256(f"{family} 0".encode()).hexdigest()[:32]
    row = {"rule": rule, "family": first, "id": name, "similarity": similarity, "kept": not number}
    return {**row, "source": "s", "path": f"{family}/{number}", "text": f"text {family} {number} " * 300}


def gathered(folder: Path, parts: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    texts, tables = FamilyTexts(), []
    for number, part in enumerate(parts):
        own = FamilyTexts()
        with TableWriter(folder / f"{number}.parquet", FAMILY_COLUMNS) as table:
            for row in part:
                own.offer(row)
                table.add({**row, "text": ""})
        for shown in own.rows():
            texts.offer(shown)
        tables.append(folder / f"{number}.parquet")
    gather_families(tables, texts, folder / "all.parquet")
    return list(rows_of(folder / "all.parquet"))


MEMBERS = st.lists(
    st.builds(
        member,
        st.sampled_from(["near", "url"]),
        st.integers(0, 120),
        st.integers(1, 12),
        st.sampled_from([0.7, 0.8]),
    ),
    max_size=120,
    unique_by=lambda row: (row["rule"], row["id"]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MEMBERS, st.integers(1, 4))
def test_the_parts_do_not_change_the_table(tmp_path: Path, rows: list[dict[str, Any]], count: int) -> None:
    whole = gathered(tmp_path / "whole", [rows])
    assert gathered(tmp_path / "parts", [rows[start::count] for start in range(count)]) == whole
    ordered = sorted(rows, key=lambda row: (row["rule"], row["family"], -row["similarity"], row["id"]))
    assert [{**row, "text": ""} for row in whole] == [{**row, "text": ""} for row in ordered]


def test_texts_are_kept_of_a_few_families_and_members(tmp_path: Path) -> None:
    rows = [member("near", family, number, 1 - number / 100) for family in range(80) for number in range(9)]
    found = [row for row in gathered(tmp_path, [rows[::2], rows[1::2]]) if row["text"]]
    assert len({row["family"] for row in found}) == FAMILIES_WITH_TEXT
    assert {row["family"] for row in found} == set(sorted({row["family"] for row in rows})[:FAMILIES_WITH_TEXT])
    assert {row["path"].split("/")[1] for row in found} == set(map(str, range(MEMBERS_WITH_TEXT)))
    assert all(row["text"].startswith("text ") for row in found)


def test_more_families_take_no_more_memory(tmp_path: Path) -> None:
    peaks = []
    for families in (9_000, 18_000):
        rows = [member("near", family, number, 1 - number / 2) for family in range(families) for number in range(2)]
        tables = []
        for number in range(4):
            tables.append(tmp_path / f"{families}-{number}.parquet")
            with TableWriter(tables[-1], FAMILY_COLUMNS) as table:
                for row in rows[number::4]:
                    table.add({**row, "text": ""})
        texts = FamilyTexts()
        for row in rows:
            texts.offer(row)
        del rows
        tracemalloc.start()
        gather_families(tables, texts, tmp_path / f"{families}.parquet")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
