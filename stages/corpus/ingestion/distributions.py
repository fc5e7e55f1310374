"""The distribution of the numbers that operations compare with thresholds, for the choice of thresholds.

Values are rounded to two significant digits, so that a distribution has a few hundred distinct values at most. Those of
several parts add up to those of the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stages.corpus.operations.operation import Check


class Distributions:
    """Counts of documents by source, rule, threshold and rounded value."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str, float, float, bool]] = Counter()

    def add(self, source: str, operation: str, checks: Iterable[Check]) -> None:
        for rule, value, threshold, fails in checks:
            self._counts[source, operation, rule, threshold, float(f"{value:.2g}"), fails] += 1

    def add_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows of VALUE_COLUMNS."""
        for row in rows:
            *key, documents = row.values()
            self._counts[tuple(key)] += documents

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of VALUE_COLUMNS, sorted."""
        names = ("source", "operation", "rule", "threshold", "value", "fails")
        for key, documents in sorted(self._counts.items()):
            yield {**dict(zip(names, key, strict=True)), "documents": documents}
