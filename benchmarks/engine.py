"""Compares the engine with other tools: a six-step graph in bloomline, Kedro, DVC and Prefect, then 1,000 steps.

    python benchmarks/engine.py [--quick]          other tools: pip install -e '.[bench]'; missing ones are skipped
    python benchmarks/engine.py --plan 10000       only plans of a pipeline of 10,000 steps, which is not run
    PREFECT_PYTHON=prefect/bin/python ...          an environment for Prefect: pip install prefect 'fastapi<0.140'

Times whole commands, alternating between the tools within each round, and prints medians and their ratios to
bloomline's: wall time, and processor time, which other work on the machine disturbs less. Then it damages an output of
each tool and checks whether a wrong result is passed on. The last line is JSON.

This file is also bloomline's command line with one additional stage, `text`, of which the graph consists.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.engine_peers import PEERS, STEPS, Bloomline, Peer, environment
from stages.base import Artifact, Context, Runtime, Stage

Row = dict[str, float | str | None]


@dataclass(frozen=True)
class Text(Artifact):
    """A text."""


class Write(Stage):
    """Writes the texts of its inputs, followed by a letter."""

    version: ClassVar[str] = "1"
    spawns: ClassVar[bool] = False
    letter: str = ""
    inputs: tuple[Text, ...] = ()
    trace: Runtime[str] = ""

    def run(self, ctx: Context) -> Text:
        if self.trace:
            with open(self.trace, "a") as trace:
                trace.write(ctx.step[0])
        texts = [(text.path / "text.txt").read_text() for text in self.inputs]
        (ctx.out / "text.txt").write_text("".join(texts) + self.letter)
        return Text(ctx.out)


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in ("run", "plan"):
        from pipelines import cli
        from stages import registry

        registry.STAGES = registry.Registry("bloomline.bench", "a stage", Stage, {"text": "benchmarks.engine:Write"})
        sys.exit(cli.run(sys.argv[1:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--plan", type=int, metavar="STEPS")
    arguments = parser.parse_args()
    quick = arguments.quick
    if arguments.plan:
        with tempfile.TemporaryDirectory(prefix="bloomline-bench-") as directory:
            print(json.dumps(plans(Path(directory) / "large", arguments.plan, rounds=3)))
        return
    with tempfile.TemporaryDirectory(prefix="bloomline-bench-") as directory:
        installed = [kind for kind in PEERS if is_installed(kind)]
        if quick:
            installed = [kind for kind in installed if kind.name != "prefect"]  # a server for every command: too slow
        for kind in PEERS:
            if kind not in installed:
                print(f"{kind.name}: not installed, or too slow for --quick; skipped")
        peers = [kind(Path(directory) / kind.name) for kind in installed]
        results = six_steps(peers, rounds=1 if quick else 5, damages=["one byte, old time"] if quick else list(DAMAGES))
        large = thousand_steps(Path(directory) / "large", 50 if quick else 1000, rounds=1 if quick else 5)
    print_table(results)
    print(
        f"\n{large['steps']:.0f} steps: "
        + ", ".join(f"{name} {value:.2f} s" for name, value in large.items() if name != "steps")
    )
    print(json.dumps({"six_steps": results, "large": large}))


def is_installed(kind: type[Peer]) -> bool:
    found = subprocess.run(
        [kind.python, "-c", f"import importlib.util, sys; sys.exit(not importlib.util.find_spec({kind.module!r}))"],
        cwd=Path(__file__).resolve().parents[1],
    )
    return found.returncode == 0


def six_steps(peers: Sequence[Peer], rounds: int, damages: Sequence[str]) -> dict[str, Row]:
    """The median seconds of each question for each tool, and the outcome of each damage."""
    times: dict[str, dict[str, list[float]]] = {peer.name: {} for peer in peers}
    results: dict[str, Row] = {peer.name: {} for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            prepare(peer)
            took(times[peer.name], "cold", peer, peer.run())
            expect(peer, STEPS, "cold run")
        for question in ("no-op", "plan"):
            for peer in peers:
                command = peer.run() if question == "no-op" else peer.plan()
                if command:
                    took(times[peer.name], question, peer, command)
                    ran = traced(peer)
                    if ran:
                        results[peer.name][f"{question} ran"] = ran
        for peer in peers:
            took(times[peer.name], "d changed", peer, peer.run("D"))
            results[peer.name]["d changed ran"] = traced(peer) or "nothing"
    for peer in peers:
        for question, seconds in times[peer.name].items():
            results[peer.name][f"{question} s"] = round(statistics.median(seconds), 3)
        for damage in damages:
            results[peer.name][damage] = hurt(peer, DAMAGES[damage])
    return results


def thousand_steps(directory: Path, count: int, rounds: int) -> dict[str, float]:
    """Seconds for a generated pipeline in bloomline: one run of all steps, then plans and runs with nothing to do."""
    peer, overrides = generated(directory, count)
    command = [sys.executable, __file__, "run", *overrides]
    found: dict[str, list[float]] = {}
    plan = [sys.executable, __file__, "plan", *overrides]
    for number in range(rounds):
        if number == 0:
            took(found, "plan of all", peer, plan)
            took(found, "run of all", peer, command)
        took(found, "plan", peer, plan)
        took(found, "no-op", peer, command)
        took(found, "no-op after an edit", peer, [*command, f"tracking.close_timeout_s={number + 1}"])
    return medians(count, found)


def plans(directory: Path, count: int, rounds: int) -> dict[str, float]:
    """Seconds for plans of a generated pipeline of which nothing has run: the first one, which composes, and others."""
    peer, overrides = generated(directory, count)
    found: dict[str, list[float]] = {}
    for number in range(1 + rounds):
        took(found, "plan" if number else "first plan", peer, [sys.executable, __file__, "plan", *overrides])
    return medians(count, found)


def medians(count: int, found: dict[str, list[float]]) -> dict[str, float]:
    return {"steps": count, **{name: round(statistics.median(seconds), 3) for name, seconds in found.items()}}


def generated(directory: Path, count: int) -> tuple[Bloomline, list[str]]:
    """A pipeline of steps that mostly read two others, and the overrides that name it."""
    peer = Bloomline(directory)
    lines = "".join(
        f"  s{n}: {{stage: text, letter: '{n}'" + (f", inputs: [s{n - 1}, s{n // 2}]" if n % 10 else "") + "}\n"
        for n in range(count)
    )
    peer.write("conf/pipeline/six.yaml", "# @package _global_\nname: large\nsteps:\n" + lines)
    where = [f"hydra.searchpath=[file://{directory}/conf]", f"store.root={directory}/store"]
    return peer, [*where, "pipeline=six", "cluster=inline"]


def prepare(peer: Peer) -> None:
    shutil.rmtree(peer.directory, ignore_errors=True)
    peer.directory.mkdir(parents=True)
    for command in peer.set_up():
        timed(peer, command)


def took(times: dict[str, list[float]], question: str, peer: Peer, command: Sequence[str]) -> None:
    """Add the wall seconds and the processor seconds of a command to those of a question."""
    wall, processor = timed(peer, command)
    times.setdefault(question, []).append(wall)
    times.setdefault(f"{question}, processor", []).append(processor)


def timed(peer: Peer, command: Sequence[str]) -> tuple[float, float]:
    """Wall seconds, and processor seconds of the command and of the processes that it waited for.

    Ends the benchmark if the command fails.
    """
    began, used = time.perf_counter(), processor_s()
    done = subprocess.run(
        command, cwd=peer.directory, env=environment(peer), capture_output=True, text=True, timeout=600
    )
    wall, processor = time.perf_counter() - began, processor_s() - used
    peer.settle()
    if done.returncode:
        said = f"{done.stdout[-2000:]}{done.stderr[-4000:]}"
        sys.exit(f"{peer.name}: {' '.join(command)} ended with {done.returncode}:\n{said}")
    return wall, processor


def processor_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def traced(peer: Peer) -> str:
    """The steps that ran since the last call, sorted by name."""
    ran = "".join(sorted(peer.trace.read_text())) if peer.trace.exists() else ""
    peer.trace.unlink(missing_ok=True)
    return ran


def expect(peer: Peer, steps: str, what: str) -> None:
    ran = traced(peer)
    if ran != steps:
        sys.exit(f"{peer.name}: {what} ran {ran!r}, not {steps!r}")


def hurt(peer: Peer, damage: Callable[[Path], None]) -> str:
    """Damage the output of step a, change a parameter so that later steps have to run, and judge their results.

    "right" and "error" are acceptable. "WRONG": a result was computed from the damaged file, or that file is still
    there.
    """
    prepare(peer)
    timed(peer, peer.run())
    target = peer.outputs()["a"]
    time.sleep(0.1)
    damage(target)
    done = subprocess.run(peer.run("X"), cwd=peer.directory, env=environment(peer), capture_output=True, text=True)
    peer.settle()
    if done.returncode:
        return "error"
    outputs = peer.outputs()
    intact = "a" in outputs and outputs["a"].read_bytes() != b"" and "#" not in outputs["a"].read_text(errors="replace")
    followed = "e" in outputs and "ab" in outputs["e"].read_text(errors="replace")
    return "right" if intact and followed else "WRONG"


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.rindex(b"a")] = ord("#")
    path.chmod(0o644)
    path.write_bytes(content)


def _flip_quietly(path: Path) -> None:
    before = path.stat()
    _flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _garbage(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"#" * 1000)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "deleted": Path.unlink,
    "garbage": _garbage,
    "one byte": _flip,
    "one byte, old time": _flip_quietly,
}


def print_table(results: dict[str, Row]) -> None:
    base = results["bloomline"]
    columns = list(dict.fromkeys(column for row in results.values() for column in row))
    print(f"\n{'':22}" + "".join(f"{name:>22}" for name in results))
    for column in columns:
        cells = []
        for row in results.values():
            value = row.get(column)
            own = base.get(column)
            if isinstance(value, float) and isinstance(own, float):
                cells.append(f"{value:.2f} s ({value / own:.1f}x)")
            else:
                cells.append("-" if value is None else str(value))
        print(f"{column.removesuffix(' s'):22}" + "".join(f"{cell:>22}" for cell in cells))


if __name__ == "__main__":
    main()
