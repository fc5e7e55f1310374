"""What a rank's memory really holds, measured in three ways that the planner (`stages/training/memory`) is held to.

`held` counts the storage behind the training state, object by object, to the byte. `allocated` records the most that
tensors took at once while something ran. `process` is what the operating system says of the whole process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stages.training.zero import ShardedModel

STATUS = Path("/proc/self/status")
FIELDS = {"VmRSS": "process", "RssAnon": "process_anonymous", "VmHWM": "process_peak"}


def held(model: ShardedModel) -> dict[str, int]:
    """Bytes of distinct storage by part: parameters, optimizer (which master weights that are parameters too are not
    counted to), gradients as they are now, and what lies in files instead."""
    seen: set[int] = set()
    groups = model.groups
    return {
        "parameters": _distinct((t for one in groups for t in (one.full, *one.weights.vectors.values())), seen),
        "optimizer": _distinct((t for one in groups for t in one.optimizer.vectors.values()), seen),
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
    """Bytes of this process in memory now, those that are no file's, and the most there ever were; {} if unknown."""
    try:
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return {name: int(lines[field].split()[0]) << 10 for field, name in FIELDS.items()}
    except (OSError, KeyError, ValueError):
        return {}


def metrics(model: ShardedModel) -> Mapping[str, float]:
    """All of it as metrics, "memory_PART_bytes". Gradients are the most that were kept in a step so far."""
    found = held(model) | {"gradients": model.most_gradient_bytes} | process()
    return {f"memory_{part}_bytes": float(size) for part, size in found.items()}


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
