"""What is said of the files that `bad_files: drop` dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stages.base import StageError
from stages.corpus.ingestion.counts import drop_reason
from stages.corpus.ingestion.reading import READ
from stages.corpus.ingestion.shards import Shard
from stages.corpus.readers.file_systems import BAD_FILE

SHOWN = 3


def bad_file_notes(shards: Sequence[Shard], read: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A warning for each source with bad files, which names some of them. `read`: the facts of the shards.

    Raises StageError if nothing was read of a source but bad files: then its declaration is wrong.
    """
    documents: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    for facts in read:
        for source, _, _, kind, name, count, _ in facts["counts"]:
            documents[source] += count if kind == "read" else 0
            bad[source] += count if (kind, name) == ("dropped", drop_reason(READ, BAD_FILE)) else 0
    for source, number in sorted((+bad).items()):
        found = (facts["bad_files"] for shard, facts in zip(shards, read, strict=True) if shard.source == source)
        named = [file for files in found for file in files]
        if number == documents[source]:
            raise StageError(f"every file of source {source} is bad; the first one: {named[0][1]}")
        words = "; ".join(f"{path}: {why}" for path, why in named[:SHOWN])
        more = f"; and {number - SHOWN} more, in the ledger" if number > SHOWN else ""
        yield f"warning: source {source} has {number} bad {'file' if number == 1 else 'files'}: {words}{more}"
