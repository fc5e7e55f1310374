"""Live progress over shards: bytes of all sources, the speed, and how far each source is."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

from stages.base import Reporter
from stages.corpus.shards import Shard

SHOWN = 4  # sources at a time


class Meter:
    """Tells a reporter of shards as they are finished. The time left is the reporter's to work out."""

    def __init__(self, reporter: Reporter, what: str, shards: Sequence[Shard]) -> None:
        self._reporter, self._what = reporter, what
        self._total: dict[str, int] = defaultdict(int)
        for shard in shards:
            self._total[shard.source] += shard.size
        self._done: dict[str, int] = dict.fromkeys(self._total, 0)
        self._began = time.monotonic()
        self._tell()

    def finished(self, shard: Shard) -> None:
        self._done[shard.source] += shard.size
        self._tell()

    def _tell(self) -> None:
        done, total = sum(self._done.values()), sum(self._total.values())
        speed = done / max(time.monotonic() - self._began, 1e-3)
        under_way = [name for name in self._total if self._done[name] < self._total[name]][:SHOWN]
        shares = {name: f"{self._done[name] / self._total[name]:.0%}" for name in under_way}
        self._reporter.progress(done, total, "bytes", **{self._what: f"{speed / 1e6:.1f} MB/s", **shares})
