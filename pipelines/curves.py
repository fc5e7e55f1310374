"""The curve of a metric over the time of a step, bounded however long the step runs.

A step that continues what an earlier run began reports only the rest: `continued` puts the earlier points before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LONGEST_CURVE = 1000  # points of a metric; beyond, those between the first and the last are thinned out

Curve = list[tuple[int, float]]  # the step of training, or the number of the point; the value


@dataclass
class GrowingCurve:
    """A curve that gets points: every second one is left out as often as it is too long, but never the latest."""

    kept: Curve = field(default_factory=list)
    latest: tuple[int, float] | None = None
    count: int = 0
    stride: int = 1

    def add(self, at: int | None, value: float) -> None:
        """Add a point. `at` None: its place is its number."""
        self.latest = (self.count if at is None else at, value)
        if self.count % self.stride == 0:
            self.kept.append(self.latest)
        self.count += 1
        if len(self.kept) >= LONGEST_CURVE:
            del self.kept[1::2]
            self.stride *= 2

    def points(self) -> Curve:
        """A copy of the points."""
        left_out = self.latest is not None and self.kept[-1:] != [self.latest]
        return [*self.kept, self.latest] if self.latest is not None and left_out else list(self.kept)


def continued(earlier: Mapping[str, Curve], found: Mapping[str, Curve]) -> dict[str, Curve]:
    """The curves `found`, each with those points of `earlier` before it that it does not have itself.

    A curve of which there is nothing new yet ends where the others begin: what came later was done again.
    """
    start = min((points[0][0] for points in found.values() if points), default=0)
    joined = {}
    for name in dict.fromkeys([*earlier, *found]):
        own = found.get(name, [])
        begin = own[0][0] if own else start
        joined[name] = _bounded([*(point for point in earlier.get(name, []) if point[0] < begin), *own])
    return joined


def _bounded(points: Curve) -> Curve:
    """At most `LONGEST_CURVE` of the points, as dense in the older part as in the newer one, and the last one."""
    if len(points) <= LONGEST_CURVE:
        return points
    first, last = points[0][0], points[-1][0]
    width = max((last - first) / (LONGEST_CURVE - 2), 1.0)
    kept = {int((at - first) / width): (at, value) for at, value in reversed(points[:-1])}
    return [*(kept[place] for place in sorted(kept)), points[-1]]
