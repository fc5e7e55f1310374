"""Plans which part of which source goes into which shard. The plan depends on names and sizes only.

Shard NNNNN of the plan becomes shard NNNNN of the corpus, whichever worker reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stages.corpus.readers.reader import Part
from stages.corpus.source import Source


@dataclass(frozen=True)
class Shard:
    """Parts of one source that are read together, in order."""

    index: int
    source: str
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes as stored."""
        return sum(part.size for part in self.parts)


def plan_shards(sources: Mapping[str, Source], shard_bytes: int) -> list[Shard]:
    """Shards of about `shard_bytes` stored bytes, source by source in the order of `by_rank`.

    Raises StageError if a source cannot be listed.
    """
    grouped: list[tuple[str, tuple[Part, ...]]] = []
    for name, source in by_rank(sources):
        pieces = [piece for part in source.reader.parts() for piece in source.reader.split(part, shard_bytes)]
        grouped += [(name, tuple(group)) for group in _groups(pieces, shard_bytes)]
    return [Shard(index, name, parts) for index, (name, parts) in enumerate(grouped)]


def by_rank(sources: Mapping[str, Source]) -> list[tuple[str, Source]]:
    """Sources in the order of precedence for duplicates: by rank, then by name."""
    return sorted(sources.items(), key=lambda item: (item[1].rank, item[0]))


def _groups(parts: Sequence[Part], limit: int) -> Iterator[list[Part]]:
    """Consecutive parts together, as many as stay below the limit, and at least one."""
    group: list[Part] = []
    size = 0
    for part in parts:
        if group and size + part.size > limit:
            yield group
            group, size = [], 0
        group.append(part)
        size += part.size
    if group:
        yield group
