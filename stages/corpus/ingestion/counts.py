"""Counts documents and bytes by source, language and licence, and by what became of them: the manifest's numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from stages.artifacts.manifest import Cell, Flow, Tally
from stages.base import StageError

LABELS_LIMIT = 5000  # distinct pairs of a language and a licence in one source

Kind = Literal["read", "kept", "dropped", "trimmed", "counted"]


class CellKey(NamedTuple):
    """What a cell of the manifest is counted by."""

    source: str
    language: str
    license: str


class Counts:
    """Documents and bytes by cell, kind and name. `cells` gives the cells of a manifest.

    Labels come from content, so their number is limited: StageError beyond LABELS_LIMIT in a source.
    """

    def __init__(self, rows: Iterable[Sequence[Any]] = ()) -> None:
        self._counts: dict[tuple[CellKey, str, str], list[int]] = defaultdict(lambda: [0, 0])
        self._labels: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self.add_rows(rows)

    @classmethod
    def of(cls, cells: Iterable[Cell]) -> Counts:
        """The counts that cells were made from."""
        counts = cls()
        for cell in cells:
            key = CellKey(cell.source, cell.language, cell.license)
            tallies: list[tuple[Kind, str, Tally]] = [("read", "", cell.flow.read)]
            tallies += [("kept", str(bits), tally) for bits, tally in cell.lengths.items()]
            tallies += [("dropped", reason, tally) for reason, tally in cell.flow.dropped.items()]
            for kind, name, tally in tallies:
                counts._add(key, kind, name, tally.documents, tally.bytes)
            for operation, size in cell.flow.trimmed.items():
                counts.trimmed(key, operation, size)
            for name, count in cell.counts.items():
                counts.counted(key, name, count)
        return counts

    def read(self, cell: CellKey, size: int) -> None:
        """Count a document of `size` bytes as read."""
        self._add(cell, "read", "", 1, size)

    def kept(self, cell: CellKey, bit_length: int, documents: int, size: int) -> None:
        """Count documents of `size` bytes in all as kept, each of a size with the given bit length."""
        self._add(cell, "kept", str(bit_length), documents, size)

    def dropped(self, cell: CellKey, reason: str, size: int) -> None:
        """Count a document of `size` bytes as dropped."""
        self._add(cell, "dropped", reason, 1, size)

    def trimmed(self, cell: CellKey, operation: str, size: int) -> None:
        """Count bytes that an operation removed from a text (negative: it added some)."""
        self._add(cell, "trimmed", operation, 0, size)

    def counted(self, cell: CellKey, name: str, count: int) -> None:
        """Add to a count that an operation reports."""
        self._add(cell, "counted", name, count, 0)

    def add_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        """Add what the `rows()` of another instance returned."""
        for source, language, license_, kind, name, documents, size in rows:
            self._add(CellKey(source, language, license_), kind, name, documents, size)

    def rows(self) -> list[list[Any]]:
        """All counts as JSON values, in a fixed order: source, language, licence, kind, name, documents, bytes."""
        return [[*key[0], *key[1:], *self._counts[key]] for key in sorted(self._counts)]

    def dropped_by_reason(self) -> dict[str, Tally]:
        """The documents and bytes that were dropped, by reason."""
        found: dict[str, Tally] = {}
        for (_, kind, name), (documents, size) in sorted(self._counts.items()):
            if kind == "dropped":
                found[name] = found.get(name, Tally()) + Tally(documents=documents, bytes=size)
        return found

    def cells(self) -> tuple[Cell, ...]:
        """The cells of a manifest, sorted by key."""
        found: dict[CellKey, dict[str, dict[str, list[int]]]] = defaultdict(lambda: defaultdict(dict))
        for key, kind, name in sorted(self._counts):
            found[key][kind][name] = self._counts[key, kind, name]
        return tuple(_cell(key, kinds) for key, kinds in found.items())

    def _add(self, cell: CellKey, kind: Kind, name: str, documents: int, size: int) -> None:
        key = (cell, kind, name)
        if key not in self._counts:
            self._check(cell)
        count = self._counts[key]
        count[0] += documents
        count[1] += size

    def _check(self, cell: CellKey) -> None:
        labels = self._labels[cell.source]
        labels.add((cell.language, cell.license))
        if len(labels) > LABELS_LIMIT:
            raise StageError(
                f"source {cell.source} has more than {LABELS_LIMIT} distinct pairs of a language and a licence, for "
                f"example {cell.language!r} with {cell.license!r}: the fields `language` and `license` of its records "
                "seem to hold something else; set reader.fields, or divide the records into several sources"
            )


def _cell(key: CellKey, kinds: Mapping[str, Mapping[str, list[int]]]) -> Cell:
    def tallies(kind: Kind) -> dict[str, Tally]:
        return {name: Tally(documents=count[0], bytes=count[1]) for name, count in kinds[kind].items()}

    kept = {int(name): tally for name, tally in tallies("kept").items() if tally.documents}
    flow = Flow(
        read=sum(tallies("read").values(), Tally()),
        kept=sum(kept.values(), Tally()),
        dropped=tallies("dropped"),
        trimmed={operation: count[1] for operation, count in kinds["trimmed"].items()},
    )
    return Cell(
        source=key.source,
        language=key.language,
        license=key.license,
        flow=flow,
        lengths=dict(sorted(kept.items())),
        counts={name: count[0] for name, count in kinds["counted"].items()},
    )


def drop_reason(operation: str, rule: str) -> str:
    """The name under which the manifest counts the documents that a rule drops."""
    return f"{operation}.{rule}"
