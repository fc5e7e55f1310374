"""A batch size that grows: smaller batches at first, where they teach as much per step at less cost."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

from pydantic import PositiveInt

from stages.base import Config


class BatchSizeRamp(Config):
    """From `start` samples a step to the full size in equal increments, spread evenly over the first `samples`.

    As GPT-3 (arXiv 2005.14165) and BLOOM did: BLOOM 176B went from 192 to 2048 by 16 over 9,765,625 samples.
    """

    version: ClassVar[str] = "2"  # warm-up and decay of the learning rate are over samples

    start: PositiveInt  # samples in the first steps
    increment: PositiveInt  # samples that a step grows by
    samples: PositiveInt  # when so many were taken, steps have the full size

    def check(self, full: int, micro_batch_size: int) -> None:
        """Raise ValueError if some step could not be made of whole micro-batches, or none has exactly the full size."""
        if self.start >= full or (full - self.start) % self.increment:
            raise ValueError(
                f"batch_size_ramp: from start {self.start}, steps of increment {self.increment} do not lead to "
                f"global_batch_size {full}"
            )
        for name in ("start", "increment"):
            if getattr(self, name) % micro_batch_size:
                raise ValueError(
                    f"batch_size_ramp.{name} {getattr(self, name)} is not a multiple of micro_batch_size "
                    f"{micro_batch_size}: choose one that is"
                )

    def sizes(self, full: int) -> tuple[int, ...]:
        """Every batch size on the way, the full one included."""
        return tuple(range(self.start, full + 1, self.increment))

    def size(self, taken: int, full: int) -> int:
        """Samples of the step before which `taken` samples were taken."""
        if taken >= self.samples:
            return full
        increments = (full - self.start) // self.increment
        return self.start + taken * increments // self.samples * self.increment

    def taken(self, steps: int, full: int) -> int:
        """Samples of the first `steps` steps."""
        return _taken(self, steps, full)


@cache
def _taken(ramp: BatchSizeRamp, steps: int, full: int) -> int:
    taken = done = 0
    while done < steps and taken < ramp.samples:
        taken += ramp.size(taken, full)
        done += 1
    return taken + (steps - done) * full
