"""Every document is entered once: kept, or dropped by a rule. What is counted, listed and sampled of that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heappush, heappushpop
from typing import Any, Literal

from stages.artifacts.manifest import Cell, Flow, Tally
from stages.base import StageError

SAMPLE_CHARACTERS = 2000  # of a sampled text
LABELS_LIMIT = 5000  # different pairs of a language and a licence in one source
_MIXER = 0x9E3779B97F4A7C15  # odd: what it multiplies stays a permutation of 64 bits

Kind = Literal["read", "kept", "dropped", "trimmed", "counted"]


class Counts:
    """Documents and bytes by source, language, licence and what became of them. Plain numbers until `cells`.

    Labels come from content, so their number has a limit: past it, StageError.
    """

    def __init__(self, rows: Iterable[Sequence[Any]] = ()) -> None:
        self._counts: dict[tuple[str, str, str, str, str], list[int]] = defaultdict(lambda: [0, 0])
        self._labels: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self.add_rows(rows)

    @classmethod
    def of(cls, cells: Iterable[Cell]) -> Counts:
        """What was counted in cells."""
        counts = cls()
        for cell in cells:
            key = (cell.source, cell.language, cell.license)
            tallies: list[tuple[Kind, str, Tally]] = [("read", "", cell.flow.read)]
            tallies += [("kept", str(bits), tally) for bits, tally in cell.lengths.items()]
            tallies += [("dropped", reason, tally) for reason, tally in cell.flow.dropped.items()]
            for kind, name, tally in tallies:
                counts._add((*key, kind, name), tally.documents, tally.bytes)
            for operation, size in cell.flow.trimmed.items():
                counts.trimmed(*key, operation, size)
            for name, count in cell.counts.items():
                counts.counted(*key, name, count)
        return counts

    def read(self, source: str, language: str, license_: str, size: int) -> None:
        self._add((source, language, license_, "read", ""), 1, size)

    def kept(self, source: str, language: str, license_: str, bit_length: int, documents: int, size: int) -> None:
        """`documents` with together `size` bytes, each of a size of `bit_length` bits."""
        self._add((source, language, license_, "kept", str(bit_length)), documents, size)

    def dropped(self, source: str, language: str, license_: str, reason: str, size: int) -> None:
        self._add((source, language, license_, "dropped", reason), 1, size)

    def trimmed(self, source: str, language: str, license_: str, operation: str, size: int) -> None:
        self._add((source, language, license_, "trimmed", operation), 0, size)

    def counted(self, source: str, language: str, license_: str, name: str, count: int) -> None:
        """What an operation says it did."""
        self._add((source, language, license_, "counted", name), count, 0)

    def add_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        """What another `rows()` told."""
        for *key, documents, size in rows:
            self._add(tuple(key), documents, size)  # type: ignore[arg-type]

    def rows(self) -> list[list[Any]]:
        """Everything counted, as JSON values, in a fixed order."""
        return [[*key, *self._counts[key]] for key in sorted(self._counts)]

    def cells(self) -> tuple[Cell, ...]:
        found: dict[tuple[str, str, str], dict[str, dict[str, list[int]]]] = defaultdict(lambda: defaultdict(dict))
        for source, language, license_, kind, name in sorted(self._counts):
            found[source, language, license_][kind][name] = self._counts[source, language, license_, kind, name]
        return tuple(_cell(*key, kinds) for key, kinds in found.items())

    def _add(self, key: tuple[str, str, str, str, str], documents: int, size: int) -> None:
        if key not in self._counts:
            self._check(*key[:3])
        count = self._counts[key]
        count[0] += documents
        count[1] += size

    def _check(self, source: str, language: str, license_: str) -> None:
        labels = self._labels[source]
        labels.add((language, license_))
        if len(labels) > LABELS_LIMIT:
            raise StageError(
                f"source {source} has more than {LABELS_LIMIT} different pairs of a language and a licence, among them "
                f"{language!r} with {license_!r}: its records' fields `language` and `license` seem to hold something "
                "else; rename these fields in its records, or divide it into sources"
            )


def _cell(source: str, language: str, license_: str, kinds: Mapping[str, Mapping[str, list[int]]]) -> Cell:
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
        source=source,
        language=language,
        license=license_,
        flow=flow,
        lengths=dict(sorted(kept.items())),
        counts={name: count[0] for name, count in kinds["counted"].items()},
    )


def reason(operation: str, rule: str) -> str:
    """The name under which the manifest counts a rule's drops."""
    return f"{operation}.{rule}"


class Samples:
    """The first few dropped documents of each source and rule in an order that a seed makes of their ids.

    Samples of parts, put together, are the samples of the whole.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self._heaps: dict[tuple[str, str, str], list[tuple[int, str, Mapping[str, str]]]] = defaultdict(list)

    def offer(self, row: Mapping[str, str]) -> None:
        """A row of SAMPLE_COLUMNS; `text` may be longer than is kept."""
        key = ((int(row["id"][:16], 16) ^ self._seed) * _MIXER) & 0xFFFF_FFFF_FFFF_FFFF
        heap = self._heaps[row["source"], row["operation"], row["rule"]]
        if len(heap) < self._count:
            heappush(heap, (-key, row["id"], {**row, "text": row["text"][:SAMPLE_CHARACTERS]}))
        elif heap and (-key, row["id"]) > heap[0][:2]:
            heappushpop(heap, (-key, row["id"], {**row, "text": row["text"][:SAMPLE_CHARACTERS]}))

    def rows(self) -> Iterator[Mapping[str, str]]:
        """Those drawn, by source and rule, then in the order of the drawing."""
        for key in sorted(self._heaps):
            yield from (row for _, _, row in sorted(self._heaps[key], key=lambda entry: (-entry[0], entry[1])))
