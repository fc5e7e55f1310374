"""The ranks of `benchmarks/zero.py`: processes that build every variant and run the variants in turn.

    python -m benchmarks.zero_ranks '{"setting": {...}, "rounds": 5, ...}'       run by benchmarks/zero.py

All variants run in the same processes and communicate over the same loopback device. In a separate network namespace
nothing else uses that device, so the kernel's counters are the bytes that a variant has sent. Prints one line of JSON
per variant.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.zero_peers import Batches, Step, build
from benchmarks.zero_setting import SHARDED, SINGLE, Setting, Variant

MAPPED_BYTES, DEFAULT_MAPPED_BYTES = 1 << 16, 1 << 25  # the second is the limit of glibc's dynamic threshold
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
Facts = dict[str, dict[str, Any]]
LINK = "rate 1gbit burst 1mb latency 50ms"


def main() -> None:
    task = json.loads(sys.argv[1])
    setting = Setting(**task["setting"])
    if setting.ranks == 1:
        work(0, setting, task, "")
        return
    if task["namespace"]:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    rendezvous = f"file://localhost{tempfile.mkdtemp()}/ranks"
    context = multiprocessing.get_context("fork")  # torch is imported, but has not started any thread yet
    processes = [context.Process(target=work, args=(rank, setting, task, rendezvous)) for rank in range(setting.ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in processes))


def work(rank: int, setting: Setting, task: dict[str, Any], rendezvous: str) -> None:
    """The work of one rank: measure memory and traffic of each variant, then time them in turn, over both links."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(setting.ranks)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "DS_ACCELERATOR": "cpu"}
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    if setting.ranks > 1:
        dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=setting.ranks)
    output, sys.stdout = sys.stdout, sys.stderr  # keeps the output of libraries out of the results
    variants = SHARDED if setting.ranks > 1 else SINGLE
    map_large_blocks(MAPPED_BYTES)
    prepared(variants[0], setting, rank, False)  # one-time allocations of the process are not any variant's
    found: Facts = {}
    steps: dict[str, Step] = {}
    for variant in variants:
        if variant.name not in task["variants"]:
            continue
        try:
            steps[variant.name], found[variant.name] = prepared(variant, setting, rank, task["namespace"])
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
            found[variant.name] = {"error": f"{type(error).__name__}: {reason}"}
    map_large_blocks(DEFAULT_MAPPED_BYTES)
    in_turn(steps, "seconds", found, setting, rank, task)
    if setting.ranks > 1 and task["namespace"]:
        if rank == 0:
            subprocess.run(["tc", "qdisc", "add", "dev", "lo", "root", "tbf", *LINK.split()], check=True)
        dist.barrier()
        in_turn(steps, "slow_seconds", found, setting, rank, task)
    if rank == 0:
        for name, facts in found.items():
            print(json.dumps({"variant": name, **facts}), file=output, flush=True)
    if setting.ranks > 1:
        dist.destroy_process_group()


def in_turn(steps: dict[str, Step], key: str, found: Facts, setting: Setting, rank: int, task: dict[str, Any]) -> None:
    """Time a few steps of each variant in every round, in alternating order: wall-clock time, and the processor time of
    all ranks together, which depends less on other work on the machine."""
    for number in range(task["rounds"]):
        for name in list(steps) if number % 2 else list(reversed(steps)):
            seconds, processor_seconds = timed(steps[name], setting, rank, task["steps"])
            found[name].setdefault(key, []).append(seconds)
            found[name].setdefault(f"{key}_processor", []).append(processor_seconds)


def prepared(variant: Variant, setting: Setting, rank: int, counted: bool) -> tuple[Step, dict[str, Any]]:
    """The variant after warm-up, with the bytes that it holds and, if `counted`, the bytes that it sends."""
    before = mapped_bytes()
    step = build(variant, setting)
    losses = [step(batches(setting, rank, number)) for number in range(2)]
    facts: dict[str, Any] = {"loss": losses[-1], "held_bytes": mapped_bytes() - before}
    facts["peak_bytes"] = peak_of(lambda: step(batches(setting, rank, 0))) - before
    if counted and setting.ranks > 1:
        settle()
        carried = carried_bytes()
        settle()
        barrier = carried_bytes() - carried
        for number in range(2):
            step(batches(setting, rank, number))
        settle()
        facts["sent_bytes"] = (carried_bytes() - carried - 2 * barrier) / 2 / setting.ranks
    return step, facts


def settle() -> None:
    dist.barrier()
    time.sleep(0.05)


def timed(step: Step, setting: Setting, rank: int, count: int) -> tuple[float, float]:
    """Seconds per step, and processor seconds per step summed over the ranks."""
    given = [batches(setting, rank, number) for number in range(count)]
    if setting.ranks > 1:
        dist.barrier()
    began, used = time.perf_counter(), time.process_time()
    for one in given:
        step(one)
    processor = torch.tensor(time.process_time() - used, dtype=torch.float64)
    if setting.ranks > 1:
        dist.all_reduce(processor)
    return (time.perf_counter() - began) / count, float(processor) / count


def batches(setting: Setting, rank: int, number: int) -> Batches:
    generator = torch.Generator().manual_seed(1000 * number + rank)
    shape = (setting.samples, setting.length + 1)
    return [torch.randint(0, setting.vocab_size, shape, generator=generator) for _ in range(setting.micro_batches)]


def carried_bytes() -> int:
    """Bytes that the loopback device has carried so far: the sum over all ranks."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[8])


class MallocInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks")),
        *((name, ctypes.c_size_t) for name in ("fsmblks", "uordblks", "fordblks", "keepcost")),
    ]


def map_large_blocks(threshold_bytes: int) -> None:
    """Have glibc map every block of at least this size separately, which it then counts."""
    with contextlib.suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, threshold_bytes)
        ctypes.CDLL(None).mallopt(
            M_TRIM_THRESHOLD, 2 * threshold_bytes
        )  # the ratio that glibc's dynamic threshold keeps


def mapped_bytes() -> int:
    """Bytes of large blocks that this process holds; 0 with a C library other than glibc."""
    try:
        information = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0
    information.restype = MallocInfo
    return int(information().hblkhd)


def peak_of(call: Any) -> int:
    """The most bytes that were held at once during a call, sampled at most two thousand times a second."""
    peak, ended = mapped_bytes(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.is_set():
            peak = max(peak, mapped_bytes())
            time.sleep(5e-4)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        call()
    finally:
        ended.set()
        thread.join()
    return peak


if __name__ == "__main__":
    main()
