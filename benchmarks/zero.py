"""ZeRO compared with its peers: this library, DDP, FSDP2 and DeepSpeed train the same decoder on the same data.

    python benchmarks/zero.py [--quick]          peers: pip install -e '.[bench]'; those not installed are skipped

For each variant: the bytes that a rank holds between steps and at the peak of a step; the bytes that it sends (counted
by the kernel in a separate network namespace); tokens per second by wall-clock time and by processor time; and tokens
per second over a link of 1 Gbit/s. "any order" is this library without its fixed order of sums, and shows what bitwise
equality costs. A second table compares one process without sharding with transformers' BLOOM. Variants take turns in
every round; ratios are medians of paired rounds, above 1 if bloomline is faster. The last line is JSON. Network
namespaces need root, `unshare`, `ip` and `tc`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.zero_setting import OURS, SHARDED, SINGLE, Setting
from stages.model.parameters import parameter_count

ROOT = Path(__file__).resolve().parents[1]
QUICK = Setting(hidden_size=192, layers=4, heads=6, vocab_size=4096, length=128, samples=4, micro_batches=1, ranks=2)
FULL = Setting(hidden_size=256, layers=4, heads=8, vocab_size=4096, length=128, samples=4, micro_batches=2, ranks=2)
SKIPPED = ("any order 0", "any order 1", "DeepSpeed 1", "DeepSpeed 2")  # with --quick
Facts = dict[str, dict[str, Any]]


def main() -> None:
    quick = "--quick" in sys.argv
    setting = QUICK if quick else FULL
    namespace = namespaces()
    if not namespace:
        print("no separate network namespace (needs root, unshare, ip and tc): bytes sent are not measured")
    names = [variant.name for variant in SHARDED if not quick or variant.name not in SKIPPED]
    rounds = 4 if quick else 9
    facts = run({"namespace": namespace, "variants": names, "rounds": rounds, "steps": 1}, setting)
    alone = Setting(**(asdict(setting) | {"ranks": 1}))
    names = [variant.name for variant in SINGLE]
    single = run({"namespace": False, "variants": names, "rounds": 2 * rounds, "steps": 2}, alone)
    parameters = parameter_count(setting.decoder)
    print_sharded(facts, setting, parameters)
    print_single(single, alone)
    print(json.dumps({"setting": asdict(setting), "parameters": parameters, "sharded": facts, "single": single,
                      "versions": versions()}))  # fmt: skip


def namespaces() -> bool:
    """Whether the ranks can run in a separate network namespace with a shaped link."""
    if not all(map(shutil.which, ("unshare", "ip", "tc"))):
        return False
    tried = "ip link set lo up && tc qdisc add dev lo root tbf rate 1gbit burst 1mb latency 50ms"
    return subprocess.run(["unshare", "-n", "sh", "-c", tried], capture_output=True, check=False).returncode == 0


def run(task: dict[str, Any], setting: Setting) -> Facts:
    """Run the ranks; returns what they print, by variant."""
    prefix = ["unshare", "-n"] if task["namespace"] else []
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "benchmarks.zero_ranks", json.dumps({**task, "setting": asdict(setting)})],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"the ranks failed:\n{done.stderr[-3000:]}")
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"variant"')]
    return {row.pop("variant"): row for row in rows}


def ratio(facts: Facts, peer: str, own: str, key: str) -> float | None:
    """The median over paired rounds of the peer's seconds divided by ours; None if either was not measured."""
    theirs, ours = facts[peer].get(key), facts[own].get(key)
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True)) if theirs and ours else None


def speed(facts: Facts, name: str, own: str, key: str, tokens: int) -> tuple[str, str]:
    """Tokens per second, and how much faster this library is at the same stage."""
    if key not in facts[name]:
        return "-", ""
    found = None if name == own else ratio(facts, name, own, key)
    return f"{tokens / statistics.median(facts[name][key]):,.0f}", f"{found:.2f} x" if found else ""


def print_sharded(facts: Facts, setting: Setting, parameters: int) -> None:
    model_bytes = 4 * parameters
    share = (setting.ranks - 1) / setting.ranks
    tokens = setting.targets * setting.micro_batches * setting.ranks
    print(
        f"\n{parameters:,} parameters, {setting.ranks} ranks, {setting.micro_batches} micro-batches of "
        f"{setting.samples} x {setting.length} tokens on each; P = {model_bytes / 1e6:.1f} MB\n"
    )
    compared = ("tokens/s", "bloomline is", "by processor time", "at 1 Gbit/s", "bloomline is")
    header = ("", "held / P", "peak / P", "sent / P(N-1)/N", *compared)
    rows = []
    for name, row in facts.items():
        if "error" in row:
            rows.append([name, f"not measured: {row['error']}"])
            continue
        own = f"{OURS} {name.split()[-1]}"
        rows.append([
            name,
            number(row.get("held_bytes"), model_bytes),
            number(row.get("peak_bytes"), model_bytes),
            number(row.get("sent_bytes"), model_bytes * share),
            *speed(facts, name, own, "seconds", tokens),
            speed(facts, name, own, "seconds_processor", tokens)[1],
            *speed(facts, name, own, "slow_seconds", tokens),
        ])  # fmt: skip
    print_table(header, rows)


def print_single(facts: Facts, setting: Setting) -> None:
    tokens = setting.targets * setting.micro_batches
    print("\none process, no sharding, one thread\n")
    rows = []
    for name, row in facts.items():
        if "error" in row:
            rows.append([name, f"not measured: {row['error']}"])
            continue
        found = None if name == OURS else ratio(facts, name, OURS, "seconds")
        processor = None if name == OURS else ratio(facts, name, OURS, "seconds_processor")
        rows.append([
            name,
            f"{tokens / statistics.median(row['seconds']):,.0f}",
            f"{found:.2f} x" if found else "",
            f"{processor:.2f} x" if processor else "",
        ])  # fmt: skip
    print_table(("", "tokens/s", "bloomline is", "by processor time"), rows)
    print()


def number(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:.2f}"


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    whole = [row for row in rows if len(row) == len(header)]
    widths = [max(len(row[column]) for row in (header, *whole)) for column in range(len(header))]
    for row in (header, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip())


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("torch", "deepspeed", "transformers"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    main()
