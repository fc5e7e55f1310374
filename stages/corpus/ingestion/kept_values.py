"""Checks that the values of operations that sources keep exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.base import StageError
from stages.corpus.ingestion.shards import Shard
from stages.corpus.source import Source


def check_kept_values(
    sources: Mapping[str, Source], shards: Sequence[Shard], read: Sequence[Mapping[str, Any]]
) -> None:
    """Raises StageError if a source keeps a value that no operation has compared. `read`: the facts of the shards.

    Sources without a document that passed their operations are not checked.
    """
    found: dict[str, set[str]] = {}
    for shard, facts in zip(shards, read, strict=True):
        if facts["documents"]:
            found.setdefault(shard.source, set()).update(facts["values"])
    for name, values in found.items():
        if unknown := [value for value in sources[name].keep_values if value not in values]:
            expected = ", ".join(sorted(values)) or "none: its operations compare no number"
            raise StageError(
                f"source {name} has no value {unknown[0]!r}; expected one of {expected}: correct keep_values"
            )
