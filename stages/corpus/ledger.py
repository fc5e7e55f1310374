"""Counts what came in and what became of it, by source, reason and licence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from stages.artifacts.corpus import Flow, Manifest, Split, SplitFacts, Tally


class Ledger:
    """Every candidate is entered once: kept, or dropped for a reason."""

    def __init__(self) -> None:
        self._kept: dict[str, Tally] = defaultdict(Tally)
        self._dropped: dict[str, dict[str, Tally]] = defaultdict(lambda: defaultdict(Tally))
        self._licenses: dict[str, Tally] = defaultdict(Tally)

    def keep(self, source: str, license_: str, size_bytes: int) -> None:
        one = Tally(documents=1, bytes=size_bytes)
        self._kept[source] += one
        self._licenses[license_] += one

    def drop(self, source: str, reason: str, size_bytes: int) -> None:
        self._dropped[source][reason] += Tally(documents=1, bytes=size_bytes)

    def manifest(self, splits: Mapping[Split, SplitFacts]) -> Manifest:
        sources = {
            source: _flow(self._kept.get(source, Tally()), self._dropped.get(source, {}))
            for source in sorted(self._kept.keys() | self._dropped.keys())
        }
        reasons = sorted({reason for dropped in self._dropped.values() for reason in dropped})
        total = _flow(
            sum(self._kept.values(), Tally()),
            {
                reason: sum((dropped[reason] for dropped in self._dropped.values() if reason in dropped), Tally())
                for reason in reasons
            },
        )
        licenses = {name: self._licenses[name] for name in sorted(self._licenses)}
        return Manifest(total=total, sources=sources, splits=splits, licenses=licenses)


def _flow(kept: Tally, dropped: Mapping[str, Tally]) -> Flow:
    ordered = {reason: dropped[reason] for reason in sorted(dropped)}
    return Flow(read=sum(ordered.values(), kept), kept=kept, dropped=ordered)
