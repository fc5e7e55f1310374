"""One restart of an alignment: the method from one seed, then the refinement. Its result is a file, so that it resumes.

A restart computes with one thread, so that its result does not depend on where it runs.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages import csls
from stages.word_alignment.alignment import Restart
from stages.word_alignment.convex import convex_start
from stages.word_alignment.gromov import gromov_wasserstein
from stages.word_alignment.linear import Array, mapped, normalised, orthogonal
from stages.word_alignment.refinement import rcsls, refine, supervised
from stages.word_alignment.self_learning import self_learning, similarity_start
from stages.word_alignment.settings import NEIGHBOURS, Settings
from stages.word_alignment.vectors import WordVectors
from stages.word_alignment.wasserstein import Quantization, stochastic_schedule, wasserstein_procrustes

CRITERION_WORDS = 5000  # of each language, the most frequent: of the criterion
SNAPSHOTS = 40  # of W that a method keeps at most
CHANCE_TRIALS = 3

Pairs = Mapping[int, frozenset[int]]


@dataclass(frozen=True)
class Task:
    """What a worker needs for one restart. Paths are of artifacts and of the step's scratch directory."""

    seed: int
    settings: Settings
    source: Path
    target: Path
    start: Path  # of the convex start, where the method uses it
    result: Path
    pairs: Pairs  # of identical strings or of the training dictionary, where the method uses them


@dataclass(frozen=True)
class Result:
    """What a restart found. `trajectory` [iterations, d, d]: W after the method's iterations, then the refinement's."""

    restart: Restart
    seconds: float  # that the method took, without the refinement
    method_iterations: int
    unrefined: Array
    trajectory: Array


def load(path: Path, words: int | None = None) -> Array:
    """The normalised vectors of an artifact [words, d]."""
    return normalised(WordVectors(path).load(words)[1])


def run(task: Task) -> None:
    """Do a restart unless its result is there already."""
    from threadpoolctl import threadpool_limits

    if task.result.exists():
        return
    with threadpool_limits(1):
        _run(task)


def write_start(path: Path, source: Path, target: Path, settings: Settings) -> None:
    """Compute the convex start and write it, unless it is there already."""
    from safetensors.numpy import load_file
    from threadpoolctl import threadpool_limits

    if path.exists():
        load_file(path)
        return
    with threadpool_limits(1):
        words = settings.anchor_words
        anchors = _together(load(source, words), load(target, words), settings.start_words)
        _save(path, {"start": convex_start(*anchors, settings.start_iterations)}, {})


def read(path: Path) -> Result:
    """The result of a restart."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        facts = json.loads(file.metadata()["facts"])
        return Result(
            Restart.model_validate(facts["restart"]),
            facts["seconds"],
            facts["method_iterations"],
            file.get_tensor("unrefined"),
            file.get_tensor("trajectory"),
        )


def criterion(source: Array, target: Array, mapping: Array) -> float:
    """The mean CSLS of the best target of each of the 5,000 most frequent source words, among as many targets."""
    return csls.match(mapped(source[:CRITERION_WORDS], mapping), target[:CRITERION_WORDS], NEIGHBOURS).criterion


def chance_criterion(source: Array, target: Array, rounds: int, seed: int) -> float:
    """The highest criterion that refinement reaches from three random rotations.

    Refinement raises the criterion for any two clouds of points; an alignment means something where it is well above.
    """
    generator = np.random.default_rng(seed)
    source, target = source[:CRITERION_WORDS], target[:CRITERION_WORDS]
    d = source.shape[1]
    starts = [orthogonal(generator.standard_normal((d, d))) for _ in range(CHANCE_TRIALS)]
    return max(criterion(source, target, refine(source, target, start, rounds, _ignore)) for start in starts)


def _run(task: Task) -> None:
    settings = task.settings
    source, target = (load(side, settings.anchor_words) for side in (task.source, task.target))
    kept: list[Array] = []
    started = time.perf_counter()
    unrefined = _method(task, source, target, kept.append)
    seconds = time.perf_counter() - started
    every = max(1, math.ceil(len(kept) / SNAPSHOTS))
    trajectory = kept[::-every][::-1] or [unrefined]  # the last one always
    method_iterations = len(trajectory)
    mapping = refine(source, target, unrefined, settings.refinement_rounds, trajectory.append)
    criteria = [criterion(source, target, one) for one in trajectory]
    restart = Restart(
        seed=task.seed,
        criterion=criterion(source, target, mapping),
        unrefined_criterion=criterion(source, target, unrefined),
        criteria=tuple(criteria),
    )
    _save(
        task.result,
        {"unrefined": unrefined, "trajectory": np.stack(trajectory)},
        {"restart": restart.model_dump(), "seconds": seconds, "method_iterations": method_iterations},
    )


def _method(task: Task, source: Array, target: Array, progress: Callable[[Array], None]) -> Array:
    from safetensors.numpy import load_file

    settings = task.settings
    generator = np.random.default_rng([task.seed, 15])
    match settings.method:
        case "quantized_wasserstein" | "stochastic_wasserstein":
            start = load_file(task.start)["start"]
            schedule = _schedule(settings, min(len(source), len(target)))
            return wasserstein_procrustes(source, target, start, schedule, generator, progress)
        case "self_learning":
            start = similarity_start(*_together(source, target, settings.start_words))
            return self_learning(source, target, start, generator, progress)
        case "gromov_wasserstein":
            return gromov_wasserstein(*_together(source, target, settings.start_words))
        case "rcsls":
            return rcsls(source, target, task.pairs)
        case "procrustes" | "identical_strings":
            return supervised(source, target, task.pairs)


def _schedule(settings: Settings, words: int) -> list[tuple[int, Quantization]]:
    if settings.method == "stochastic_wasserstein":
        return stochastic_schedule(settings.batch_iterations, settings.batch_words, words, settings.epsilon)
    quantization = Quantization(
        settings.centroids_of(words), settings.sampler, settings.sample_words, settings.epsilon, settings.relaxation
    )
    return [(settings.iterations, quantization)]


def _together(source: Array, target: Array, words: int) -> tuple[Array, Array]:
    """As many of the most frequent words of both."""
    count = min(words, len(source), len(target))
    return source[:count], target[:count]


def _save(path: Path, tensors: Mapping[str, Array], facts: Mapping[str, object]) -> None:
    """Write the file whole or not at all."""
    from safetensors.numpy import save_file

    partial = path.with_suffix(".partial")
    save_file(
        {name: np.ascontiguousarray(value, np.float64) for name, value in tensors.items()},
        partial,
        metadata={"facts": json.dumps(facts)},
    )
    partial.replace(path)


def _ignore(_: Array) -> None:
    pass
