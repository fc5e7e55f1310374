"""What a rank's memory really holds, measured in three ways that the planner (`stages/training/memory`) is held to.

`held` counts the storage behind the training state, object by object, to the byte. `allocated` records the most that
tensors took at once while something ran. `process` is what the operating system says of the whole process.
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

# The proportional meter (PSS) divides a page that several processes map among them, so that ranks on one machine add up
# to what they take of it. Its peak nobody keeps: that of the resident set counts shared pages wholly.
METERS = {
    Path("/proc/self/smaps_rollup"): {"Pss": "process", "Pss_Anon": "process_anonymous"},
    Path("/proc/self/status"): {"VmRSS": "process_resident", "VmHWM": "process_peak"},
}


def held(model: ShardedModel) -> dict[str, int]:
    """Bytes of distinct storage by part: parameters, master weights where they are not the parameters, the optimizer's
    moments, gradients as they are now, and what lies in files instead."""
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
    """Bytes of this process in memory: now (its share of them), those that are no file's, now with all that is shared,
    and the most there ever were of that; what is known."""
    found = {}
    for path, fields in METERS.items():
        with contextlib.suppress(OSError, KeyError, ValueError):
            lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
            found |= {name: int(lines[field].split()[0]) << 10 for field, name in fields.items()}
    return found


def parts(model: ShardedModel) -> dict[str, int]:
    """All of it. Gradients are the most that were kept in a step so far."""
    return held(model) | {"gradients": model.most_gradient_bytes} | process()


def metrics(model: ShardedModel) -> Mapping[str, float]:
    """All of it as metrics, "memory_PART_bytes"."""
    return {f"memory_{part}_bytes": float(size) for part, size in parts(model).items()}


@dataclass
class Allocated:
    """Bytes that tensors took beyond what there was at the beginning: at most, and at the end."""

    peak: int = 0
    kept: int = 0


@contextmanager
def allocated() -> Iterator[Allocated]:
    """Record what tensors on the CPU take while the body runs. Slow: for tests and benchmarks."""
    found = Allocated()
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        yield found
    changes = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(changes, key=lambda event: event.start_ns()):
        found.kept += event.nbytes()
        found.peak = max(found.peak, found.kept)
