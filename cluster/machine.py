"""What this machine has: CPUs, GPUs and memory as a container or a scheduler limits them. Imports nothing heavy."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from cluster.base import Node
from cluster.config import InlineCluster, LocalCluster

ROOT = Path("/")


def this_machine(config: InlineCluster | LocalCluster) -> Node:
    """This machine as a node: the amounts that the config gives, and the detected ones for the others."""
    given = config if isinstance(config, LocalCluster) else LocalCluster()
    return Node(
        cpus=given.cpus or cpus(),
        gpus=gpus() if given.gpus is None else given.gpus,
        memory_bytes=given.memory_bytes or memory_bytes(),
        custom=dict(given.custom),
        gpu_memory_bytes=given.gpu_memory_bytes or 0,
    )


def cpus(root: Path = ROOT) -> int:
    """CPUs that this process may use: its affinity, capped by the cgroup's quota (v2, then v1). At least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cgroup = root / "sys/fs/cgroup"
    quota, period = [*_read(cgroup / "cpu.max").split(), "", ""][:2]
    if not quota:
        quota, period = _read(cgroup / "cpu/cpu.cfs_quota_us"), _read(cgroup / "cpu/cpu.cfs_period_us")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        count = min(count, math.ceil(int(quota) / int(period)))
    return max(1, count)


def gpus(root: Path = ROOT) -> int:
    """NVIDIA GPUs that this process may use: the device files, restricted by CUDA_VISIBLE_DEVICES if it is set."""
    devices = root / "dev"
    present = sum(1 for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return present
    named = [name for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    return min(present, len(named))


def memory_bytes(root: Path = ROOT) -> int:
    """Memory that this process may use, in bytes: the machine's, capped by the cgroup's limit (v2, then v1)."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cgroup = root / "sys/fs/cgroup"
    limit = _read(cgroup / "memory.max") or _read(cgroup / "memory/memory.limit_in_bytes")
    return min(total, int(limit)) if limit.isdigit() else total


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
