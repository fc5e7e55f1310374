"""The families of similar documents as one table, with the texts of some of them, in memory that does not grow.

The rows are sorted by SQLite, which writes what does not fit into its cache to temporary files. Texts are kept of a
fixed number of members.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from bisect import insort
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from stages.artifacts.corpus import FAMILY_COLUMNS
from stages.corpus.ingestion.parquet_files import TableWriter, rows_of
from stages.corpus.ingestion.samples import SAMPLE_CHARACTERS

FAMILIES_WITH_TEXT = 50  # of each rule: those with the smallest ids
MEMBERS_WITH_TEXT = 6  # of each of them: the representative and the most similar members
ROW_BYTES = 500  # of memory for a row while it waits to be written, about
CACHE_KIB = 16 << 10
_KEY = ("rule", "family", "id")
_ORDER = "rule, family, similarity DESC, id"


class FamilyTexts:
    """The beginnings of the texts of FAMILIES_WITH_TEXT families of each rule, and MEMBERS_WITH_TEXT members of each.

    The texts of several parts, offered to another instance, give those of the whole.
    """

    def __init__(self) -> None:
        self._rules: dict[str, dict[str, list[tuple[float, str, Mapping[str, Any]]]]] = {}

    def offer(self, row: Mapping[str, Any]) -> None:
        """Offer a row of FAMILY_COLUMNS; its text is cut to SAMPLE_CHARACTERS."""
        families = self._rules.setdefault(row["rule"], {})
        family = row["family"]
        if family not in families:
            if len(families) == FAMILIES_WITH_TEXT:
                last = max(families)
                if family > last:
                    return
                del families[last]
            families[family] = []
        members = families[family]
        entry = (-row["similarity"], row["id"], {**row, "text": row["text"][:SAMPLE_CHARACTERS]})
        insort(members, entry, key=lambda each: each[:2])
        del members[MEMBERS_WITH_TEXT:]

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """The rows with text, sorted by rule and family."""
        for _, families in sorted(self._rules.items()):
            for _, members in sorted(families.items()):
                yield from (row for _, _, row in members)


def gather_families(tables: Sequence[Path], texts: FamilyTexts, out: Path) -> None:
    """Write the rows of several tables as one: family after family, the representative first, then the most similar."""
    shown = {tuple(row[name] for name in _KEY): row["text"] for row in texts.rows()}
    with (
        tempfile.TemporaryDirectory(prefix="families-", dir=out.parent) as folder,
        closing(sqlite3.connect(os.path.join(folder, "rows.db"), isolation_level=None)) as database,
        TableWriter(out, FAMILY_COLUMNS) as written,
    ):
        # The database is discarded in the end, so nothing needs to survive a crash.
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        names = [name for name in FAMILY_COLUMNS if name != "text"]
        database.execute(f"CREATE TABLE members ({', '.join(names)})")
        database.execute("BEGIN")
        insert = f"INSERT INTO members VALUES ({', '.join('?' * len(names))})"
        database.executemany(insert, ([row[name] for name in names] for table in tables for row in rows_of(table)))
        database.execute("COMMIT")
        for values in database.execute(f"SELECT {', '.join(names)} FROM members ORDER BY {_ORDER}"):
            row = dict(zip(names, values, strict=True))
            row |= {"kept": bool(row["kept"]), "text": shown.get(tuple(row[name] for name in _KEY), "")}
            written.add(row, ROW_BYTES)
