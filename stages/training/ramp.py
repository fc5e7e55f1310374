"""A batch size that grows during training: small batches learn as much per step at first, and cost less."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

from pydantic import PositiveInt

from stages.base import Config


class BatchSizeRamp(Config):
    """From `start` samples per step to the full batch size in equal increments, spread evenly over `samples` samples.

    GPT-3 (arXiv 2005.14165) and BLOOM used one: BLOOM 176B went from 192 to 2048 by 16 over 9,765,625 samples.
    """

    version: ClassVar[str] = "2"  # warm-up and decay of the learning rate are over samples

    start: PositiveInt  # samples of the first steps
    increment: PositiveInt  # samples by which a step grows
    samples: PositiveInt  # steps have the full size once this many samples were taken

    def check(self, full: int, micro_batch_size: int) -> None:
        """Raise ValueError unless every step consists of whole micro-batches and the ramp ends at exactly `full`."""
        if self.start >= full or (full - self.start) % self.increment:
            raise ValueError(
                f"batch_size_ramp: increments of {self.increment} from start {self.start} do not lead to "
                f"global_batch_size {full}"
            )
        for name in ("start", "increment"):
            if getattr(self, name) % micro_batch_size:
                raise ValueError(
                    f"batch_size_ramp.{name} {getattr(self, name)} is not a multiple of micro_batch_size "
                    f"{micro_batch_size}: choose one that is"
                )

    def sizes(self, full: int) -> tuple[int, ...]:
        """Every batch size, ascending, `full` included."""
        return tuple(range(self.start, full + 1, self.increment))

    def size(self, taken: int, full: int) -> int:
        """Samples of the step that follows `taken` samples."""
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
