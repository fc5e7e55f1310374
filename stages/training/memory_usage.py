"""The memory that a rank really uses, measured in three ways; the planner (`memory_plan.py`) is tested against them.

`held` counts the storage of the training state, tensor by tensor, exactly. `allocated` records the peak of all tensors
while a piece of code runs. `process` reads what the operating system reports for the whole process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stages.training.zero import ShardedModel

# The proportional set size (PSS) divides a page among the processes that map it, so that the ranks on one machine add
# up to what they use of it. Linux does not keep its peak; the peak of the resident set counts shared pages in full.
PROCESS_FIELDS = {
    Path("/proc/self/smaps_rollup"): {"Pss": "process", "Pss_Anon": "process_anonymous"},
    Path("/proc/self/status"): {"VmRSS": "process_resident", "VmHWM": "process_peak"},
}


def held(model: ShardedModel) -> dict[str, int]:
    """Bytes of distinct storage by part: "parameters", "master" (master weights, if they are separate), "optimizer"
    (moments), "gradients" (as they are now), "files" (state that is in files instead)."""
    seen: set[int] = set()
    groups = model.groups

    def states(*names: str) -> int:
        return _distinct((v for one in groups for name, v in one.optimizer.vectors.items() if name in names), seen)

    return {
        "parameters": _distinct((t for one in groups for t in (one.full, *one.weights.vectors.values())), seen),
        "master": states("master"),
        "optimizer": states("first_moment", "second_moment"),
        "gradients": _distinct((t for one in groups for t in one.gradients()), seen),
        "files": sum(one.weights.file_bytes + one.optimizer.file_bytes for one in groups),
    }


def _distinct(tensors: Iterable[Tensor], seen: set[int]) -> int:
    total = 0
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.nbytes() and storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += storage.nbytes()
    return total


def process() -> dict[str, int]:
    """Memory of this process in bytes, as far as the operating system reports it.

    "process": proportional set size; "process_anonymous": the part of it that no file backs; "process_resident":
    resident set size, shared pages in full; "process_peak": the highest resident set size so far.
    """
    sizes: dict[str, int] = {}
    for path, fields in PROCESS_FIELDS.items():
        with contextlib.suppress(OSError, KeyError, ValueError):
            lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
            sizes |= {name: int(lines[field].split()[0]) << 10 for field, name in fields.items()}
    return sizes


def parts(model: ShardedModel) -> dict[str, int]:
    """`held` and `process` together, with the most bytes of gradients that were held in any step so far."""
    return held(model) | {"gradients": model.most_gradient_bytes} | process()


def metrics(model: ShardedModel) -> Mapping[str, float]:
    """`parts` as metrics "memory_PART_bytes"."""
    return {f"memory_{part}_bytes": float(size) for part, size in parts(model).items()}


@dataclass
class Allocated:
    """Bytes of tensors beyond those at the start: the peak, and what remains at the end."""

    peak: int = 0
    kept: int = 0


@contextmanager
def allocated() -> Iterator[Allocated]:
    """Record the memory of tensors on the CPU while the body runs. Slow: for tests and benchmarks."""
    found = Allocated()
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        yield found
    changes = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(changes, key=lambda event: event.start_ns()):
        found.kept += event.nbytes()
        found.peak = max(found.peak, found.kept)
