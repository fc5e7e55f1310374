"""A killed ingestion resumes and writes the same bytes; nothing incomplete is taken for done."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from stages.corpus.ingestion.completion_markers import MARKER, completed_facts, run_once
from tests.durability import lost_in_a_power_cut
from tests.stages.corpus.examples import digests, prose, source, write_lines
from tests.stages.corpus.ingestion import children

KILLS = 20
MEASURING_KILLS = 8
MOST_RUNS = 200  # of which few should be needed


def values(folder: Path, files: int = 6) -> dict[str, Any]:
    """Two sources of small shards, with copies from one in the other."""
    sources = {}
    for rank, name in enumerate(("first", "second")):
        for number in range(files // 2):
            records = [{"text": prose(number * 40 + line + rank * 100, 80)} for line in range(30)]
            write_lines(folder / name / f"{number:02d}.jsonl", [*records, {"text": "short"}])
        operations = [{"operation": "words", "minimum": 20}]
        sources[name] = source(folder / name / "*.jsonl", rank=rank, operations=operations)
    return {"sources": sources, "shard_bytes": 20_000, "validation_fraction": 0.2, "limit_bytes": 60_000}


class Moments:
    """Random moments to kill at. They come later after a kill that came before the work, and earlier after one that
    came too late: so some are in the middle of it however fast the machine is just then."""

    def __init__(self, seed: int, longest_s: float) -> None:
        self.chance, self.longest_s = random.Random(seed), longest_s

    def next_s(self) -> float:
        return self.chance.uniform(0, self.longest_s)

    def hit(self, done: int, pieces: int) -> bool:
        """Records whether the last kill was in the middle of the work, with some of its pieces done."""
        if 0 < done < pieces:
            return True
        self.longest_s *= 1.2 if done == 0 else 1 / 1.2
        return False


def test_twenty_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    config, pieces = values(tmp_path / "in"), 2 * 6
    for name in ("first", "calm"):  # the first one waits for the server to be there
        began = time.monotonic()
        calm = children.start(config, tmp_path / name, tmp_path / f"{name} scratch")
        calm.join(60)
        whole_s = time.monotonic() - began
        assert calm.exitcode == 0
    moments, kills, runs, resumed = Moments(2, whole_s / 2), 0, 0, False
    scratch = tmp_path / "scratch"
    while kills < KILLS or not resumed:  # until some was killed in the middle of the work
        assert runs < MOST_RUNS
        runs += 1
        out = tmp_path / f"out{runs}"
        child = children.start(config, out, scratch)
        child.join(moments.next_s())
        child.kill()
        child.join(60)
        if child.exitcode == 0:
            assert digests(out) == digests(tmp_path / "calm")
            shutil.rmtree(scratch)  # start again
            moments.hit(pieces, pieces)
        else:
            kills += 1
            done = len(list(scratch.glob("*/*/" + MARKER)))
            resumed = moments.hit(done, pieces) or resumed
            if done == pieces and not resumed:
                shutil.rmtree(scratch)  # nothing is left to be killed in the middle of
    last = children.start(config, tmp_path / "last", scratch)
    last.join(60)
    assert last.exitcode == 0
    assert digests(tmp_path / "last") == digests(tmp_path / "calm")


def test_kills_while_shards_are_measured_change_nothing(tmp_path: Path) -> None:
    rules = [{"rule": "near"}, {"rule": "lines", "min_count": 2}, {"rule": "substrings"}]
    config = values(tmp_path / "in") | {"deduplicate": rules, "memory_bytes": 1, "min_characters": 10}
    scratch = tmp_path / "scratch"
    children.run(config, tmp_path / "calm", tmp_path / "calm scratch")
    measured, decided = (tmp_path / "calm scratch" / name for name in ("measured", "decided"))
    first = min(path.stat().st_ctime for path in measured.rglob("*"))
    pieces = len(list(measured.rglob(MARKER)))
    phase_s = max(path.stat().st_ctime for path in decided.rglob("*")) - first
    moments, kills, runs, resumed = Moments(3, phase_s / 2), 0, 0, False
    while kills < MEASURING_KILLS or not resumed:
        assert runs < MOST_RUNS
        runs += 1
        child = children.start(config, tmp_path / f"out{runs}", scratch)
        while child.is_alive() and not (scratch / "measured").exists():
            time.sleep(0.001)
        child.join(moments.next_s())
        child.kill()
        child.join(60)
        if child.exitcode == 0:
            assert digests(tmp_path / f"out{runs}") == digests(tmp_path / "calm")
            shutil.rmtree(scratch)
            moments.hit(pieces, pieces)
        else:
            kills += 1
            done = len(list((scratch / "measured").rglob(MARKER)))
            resumed = moments.hit(done, pieces) or resumed
            if done == pieces and not resumed:
                shutil.rmtree(scratch)
    children.run(config, tmp_path / "last", scratch)
    assert digests(tmp_path / "last") == digests(tmp_path / "calm")
    assert not list(scratch.glob("measured/spill*"))  # what killed ones left there is gone


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_whatever_was_damaged_is_done_again(tmp_path: Path) -> None:
    config, scratch = values(tmp_path / "in", files=4), tmp_path / "scratch"
    children.run(config, tmp_path / "out", scratch)
    before = digests(tmp_path / "out")
    damages: tuple[Callable[[Path], object], ...] = (cut, flip, Path.unlink, lambda path: path.write_bytes(b""))
    files: tuple[tuple[str, str], ...] = (
        ("read/00001/drafts.arrow", f"read/00000/{MARKER}"),
        ("read/00001/signatures.bin", f"written/00001/{MARKER}"),
    )
    for number, (both, damage) in enumerate(product(files, damages)):
        for file in both:
            damage(scratch / file)
        children.run(config, tmp_path / f"again{number}", scratch)
        assert digests(tmp_path / f"again{number}") == before, (both, damage)


def test_finished_work_is_not_done_again_and_other_inputs_are(tmp_path: Path) -> None:
    calls = []

    def work(folder: Path) -> dict[str, int]:
        calls.append(folder)
        (folder / "file").write_text("content")
        return {"facts": len(calls)}

    place = tmp_path / "a" / "00000"
    assert [run_once(place, {"x": 1}, work) for _ in range(3)] == [{"facts": 1}] * 3
    assert run_once(place, {"x": 2}, work) == {"facts": 2}
    assert completed_facts(place, {"x": 1}) is None
    assert [path.name for path in place.parent.iterdir()] == ["00000"]


def test_finished_work_is_not_lost_in_a_power_cut(tmp_path: Path) -> None:
    def work(folder: Path) -> dict[str, int]:
        (folder / "file").write_text("content")
        return {}

    with lost_in_a_power_cut(tmp_path) as lost:
        run_once(tmp_path / "a" / "00000", {}, work)
    assert lost == []


def test_work_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def work(folder: Path) -> dict[str, int]:
        (folder / "file").write_text("half")
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        run_once(tmp_path / "a" / "00000", {}, work)
    assert list((tmp_path / "a").iterdir()) == []
