"""Word alignment: accuracy by method and seed on parallel help texts, and the cost of transport by quantization.

    python benchmarks/word_alignment.py accuracy --languages fr es de --seeds 8   # a table, and one JSON line a run
    python benchmarks/word_alignment.py transport --words 20000                    # time, memory and error against n
    python benchmarks/word_alignment.py scale --words 200000 --dimensions 300      # time and memory of an alignment
    python benchmarks/word_alignment.py --quick

Texts and dictionaries are those of BLOOMLINE_TEST_DATA (default ../shared/data): libreoffice_help_corpus, freedict_bli.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stages.csls import densities
from stages.word_alignment import restarts
from stages.word_alignment.accuracy import accuracy
from stages.word_alignment.dictionaries import Dictionary, known_pairs
from stages.word_alignment.linear import Array, mapped, normalised, orthogonal
from stages.word_alignment.page_vectors import train
from stages.word_alignment.sampling import quantize
from stages.word_alignment.settings import NEIGHBOURS, RANDOM, Settings
from stages.word_alignment.texts import TextFile
from stages.word_alignment.transport import TOLERANCE, entropic_plan, pot, squared_distances
from stages.word_alignment.vectors import VectorFacts, WordVectors, write

DATA = Path(os.environ.get("BLOOMLINE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
EPSILON = 0.05
SPREAD = 0.3  # of the logarithm of the ranks of translations

METHODS: dict[str, dict[str, Any]] = {
    "Procrustes (supervised)": {"method": "procrustes"},
    "RCSLS (supervised)": {"method": "rcsls"},
    "identical strings": {"method": "identical_strings"},
    "qWP, one Lloyd step": {"sampler": "lloyd"},
    "qWP, k-means++": {"sampler": "kmeans_plus_plus"},
    "qWP, k-means": {"sampler": "kmeans"},
    "qWP, random": {"sampler": "random"},
    "qWP, one Lloyd step, unbalanced": {"sampler": "lloyd", "relaxation": 1.0},
    "WP": {"method": "stochastic_wasserstein", "batch_iterations": 200},
    "Gromov-Wasserstein": {"method": "gromov_wasserstein", "start_words": 1000},
    "self-learning": {"method": "self_learning"},
}
QUICK_METHODS = ("qWP, one Lloyd step", "identical strings")
TRANSPORTS = ("quantized", "sinkhorn", "exact")
CENTROIDS = (50, 100, 200, 300, 500, 1000)


def help_vectors(language: str, words: int, folder: Path) -> WordVectors:
    """Vectors of the help texts of a language."""
    folder.mkdir()
    text = TextFile(path=DATA / "libreoffice_help_corpus" / f"{language}.txt.gz")
    found, vectors = train(text.pages(), words, dimensions=100, min_pages=3)
    return write(
        folder, found, vectors, VectorFacts(language=language, words=len(found), dimensions=100, origin="text")
    )


def compare(language: str, words: int, seeds: int, curve: bool, only: list[str]) -> Iterator[dict[str, Any]]:
    """A row for every method and seed: accuracy before and after refinement, the criterion, seconds."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        sides = [help_vectors(name, words, folder / name) for name in ("en-US", language)]
        names, vectors = zip(*(side.load() for side in sides), strict=True)
        source, target = map(normalised, vectors)
        dictionary = DATA / "freedict_bli" / f"en-{language}.tsv.gz"
        train_pairs, test_pairs = (
            known_pairs(Dictionary(path=dictionary, part=part).pairs(), *names) for part in ("train", "test")
        )
        same = known_pairs([(word, word) for word in names[0]], *names)
        start = folder / "start.safetensors"
        restarts.write_start(start, sides[0].path, sides[1].path, Settings())
        runs = [(name, METHODS[name]) for name in only or METHODS]
        if curve:
            runs = [
                (f"qWP, {sampler}, k={count}", {"sampler": sampler, "centroids": count})
                for count in CENTROIDS for sampler in ("random", "lloyd")
            ]  # fmt: skip
        for name, fields in runs:
            settings = Settings.model_validate(fields)
            for seed in range(seeds if settings.method in RANDOM else 1):
                result = folder / f"{name}-{seed}.safetensors".replace(" ", "_")
                pairs = same if settings.method == "identical_strings" else train_pairs
                restarts.run(restarts.Task(seed, settings, sides[0].path, sides[1].path, start, result, pairs))
                found = restarts.read(result)
                row: dict[str, Any] = {
                    "language": language, "words": words, "method": name, "seed": seed,
                    "criterion": found.restart.criterion, "seconds": found.seconds,
                }  # fmt: skip
                for when, mapping in (("before", found.unrefined), ("after", found.trajectory[-1])):
                    row[when] = accuracy(mapped(source, mapping), target, test_pairs).model_dump()
                yield row


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Means over seeds with the half-width of their 95 % interval (normal), and the seed of the best criterion."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["language"], row["method"]].append(row)
    lines = [
        "| pair | method | seeds | P@1 before | P@1 | P@5 | MRR | P@1, best criterion | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (language, method), group in groups.items():
        best = max(group, key=lambda row: row["criterion"])
        cells = [
            _mean([100 * row["before"]["p_at_1"] for row in group]),
            _mean([100 * row["after"]["p_at_1"] for row in group]),
            _mean([100 * row["after"]["p_at_5"] for row in group]),
            _mean([100 * row["after"]["mrr"] for row in group]),
            f"{100 * best['after']['p_at_1']:.1f}",
            f"{np.median([row['seconds'] for row in group]):.1f}",
        ]
        lines.append(f"| en-{language} | {method} | {len(group)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{np.mean(values):.1f} ± {1.96 * np.std(values, ddof=1) / len(values) ** 0.5:.1f}"


def planted_clouds(words: int, dimensions: int = 100, spread: float | None = None) -> tuple[Array, Array, Array, Array]:
    """(source, target, W, places): the target is the source rotated, permuted and with noise.

    With a `spread`, the logarithm of each word's rank changes by so much only, as the ranks of translations do in two
    lists by frequency.
    """
    generator = np.random.default_rng(0)
    scales = 1 / np.sqrt(np.arange(1, dimensions + 1))
    centres = generator.standard_normal((words // 20, dimensions)) ** 3
    members = generator.integers(len(centres), size=words)
    source = normalised((centres[members] + generator.standard_normal((words, dimensions))) * scales)
    mapping = orthogonal(generator.standard_normal((dimensions, dimensions)))
    order = generator.permutation(words)
    if spread is not None:
        order = np.argsort(np.arange(1, words + 1) * np.exp(spread * generator.standard_normal(words)))
    noisy = source @ mapping + 0.3 * generator.standard_normal(source.shape) / dimensions**0.5
    return source, normalised(noisy[order]), mapping, np.argsort(order)


def transport(method: str, words: int, centroids: int) -> dict[str, Any]:
    """One transport plan under the true W: seconds, memory, its cost, and the accuracy of the W that it leads to."""
    source, target, mapping, places = planted_clouds(words)
    # Float32 halves the time and the memory of all but POT's network simplex, which needs float64.
    dtype = np.float64 if method == "exact" else np.float32
    moved, target = (source @ mapping).astype(dtype), target.astype(dtype)
    pot()  # importing it is not part of the cost
    quantize(moved[:10], 2, "lloyd", np.random.default_rng(0))
    before = _memory()
    started = time.process_time()  # of one thread: the load of the machine does not change it much
    if method in ("quantized", "random words"):
        generator = np.random.default_rng(1)
        sampler: Literal["lloyd", "random"] = "lloyd" if method == "quantized" else "random"
        points, weights = quantize(moved, centroids, sampler, generator)
        others, other_weights = quantize(target, centroids, sampler, generator)
        costs = squared_distances(points, others)
        plan = entropic_plan(weights, other_weights, costs, EPSILON)
        cross = points.T @ plan @ others
    else:
        uniform = np.full(words, 1 / words, dtype)
        costs = unit_distances(moved, target)
        if method == "exact":
            plan = pot().emd(uniform, uniform, costs, numItermax=10_000_000)
        else:
            plan = pot().sinkhorn(uniform, uniform, costs, EPSILON, numItermax=1000, stopThr=TOLERANCE, warn=False)
        cross = moved.T @ plan @ target
    seconds = time.process_time() - started
    megabytes = (_memory() - before) / 1e6
    known = {place: frozenset([int(places[place])]) for place in range(0, words, max(1, words // 1000))}
    return {
        "method": method, "words": words, "centroids": centroids, "seconds": seconds,
        "megabytes": megabytes, "cost": float(np.vdot(plan, costs)),
        "p_at_1": accuracy(mapped(moved, orthogonal(cross)), target, known).p_at_1,
    }  # fmt: skip


def scale(words: int, dimensions: int) -> Iterator[dict[str, Any]]:
    """A row for each part of an alignment of planted vectors: processor seconds, and the peak memory until then."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source, target, _, places = planted_clouds(words, dimensions, SPREAD)
        names = [f"word{number}" for number in range(words)]
        paths = [folder / "source", folder / "target"]
        for path, vectors in zip(paths, (source, target), strict=True):
            path.mkdir()
            facts = VectorFacts(language=path.name, words=words, dimensions=dimensions, origin="file")
            write(path, names, vectors, facts)
        known = {place: frozenset([int(places[place])]) for place in range(0, words, max(1, words // 1000))}
        del source, target, vectors
        settings, start, result = Settings(), folder / "start.safetensors", folder / "result.safetensors"
        began = time.process_time()

        def row(part: str, **more: float) -> dict[str, Any]:
            nonlocal began
            ended, before = time.process_time(), began
            began = ended
            memory = {"peak_megabytes": _memory() / 1e6}
            return {"words": words, "dimensions": dimensions, "part": part, "seconds": ended - before} | memory | more

        restarts.write_start(start, paths[0], paths[1], settings)
        yield row("convex start")
        restarts.run(restarts.Task(0, settings, paths[0], paths[1], start, result, {}))
        yield row("one restart, refined")
        mapping = restarts.read(result).trajectory[-1]
        source, target = map(restarts.load, paths)
        source = mapped(source, mapping)
        found = densities(source, target, NEIGHBOURS)
        yield row("densities of all words (CSLS)")
        yield row("accuracy", p_at_1=accuracy(source, target, known, found).p_at_1)


def unit_distances(source: Array, target: Array) -> Array:
    """|x - y|^2 of unit vectors, in their own precision and in one array."""
    costs: Array = source @ target.T
    costs *= -2
    costs += 2
    np.maximum(costs, 0, out=costs)
    return costs


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a little of accuracy and transport, under a minute")
    verbs = parser.add_subparsers(dest="verb")
    compared = verbs.add_parser("accuracy")
    compared.add_argument("--languages", nargs="+", default=["fr", "es", "de"])
    compared.add_argument("--words", type=int, default=2500)
    compared.add_argument("--seeds", type=int, default=8)
    compared.add_argument("--curve", action="store_true", help="qWP with several numbers of centroids instead")
    compared.add_argument("--methods", nargs="+", choices=list(METHODS), default=[], help="default: all")
    costs = verbs.add_parser("transport")
    costs.add_argument("--words", nargs="+", type=int, default=[1000, 2000, 5000, 10_000, 20_000])
    costs.add_argument("--centroids", type=int, default=500)
    costs.add_argument("--methods", nargs="+", default=TRANSPORTS, help='also "random words"')
    one = verbs.add_parser("one", help="one transport plan, in a separate process: what `transport` starts")
    one.add_argument("method")
    one.add_argument("words", type=int)
    one.add_argument("centroids", type=int)
    scaled = verbs.add_parser("scale")
    scaled.add_argument("--words", type=int, default=200_000)
    scaled.add_argument("--dimensions", type=int, default=300)
    options = parser.parse_args()
    threadpool_limits(1)
    if options.quick:
        rows = _print(transports([1000, 2000], 200, TRANSPORTS))
        rows += _print(compare("es", 2500, 1, False, ["Procrustes (supervised)", *QUICK_METHODS]))
        print(table(rows[2 * len(TRANSPORTS) :]))
        print(json.dumps({"quick": rows}))
    elif options.verb == "one":
        print(json.dumps(transport(options.method, options.words, options.centroids)))
    elif options.verb == "transport":
        _print(transports(options.words, options.centroids, options.methods))
    elif options.verb == "scale":
        _print(scale(options.words, options.dimensions))
    elif options.verb == "accuracy":
        languages = options.languages
        rows = [
            row
            for language in languages
            for row in _print(compare(language, options.words, options.seeds, options.curve, options.methods))
        ]
        print(table(rows))
    else:
        parser.error("choose accuracy, transport or scale, or --quick")


def transports(words: Sequence[int], centroids: int, methods: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each number of words and method. Each is a separate process, whose memory is its own."""
    for count in words:
        for method in methods:
            command = [sys.executable, __file__, "one", method, str(count), str(centroids)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode == 0:  # one that runs out of memory must not end the others
                yield json.loads(done.stdout)


def _print(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each printed as soon as it is there."""
    found = []
    for row in rows:
        print(json.dumps(row), flush=True)
        found.append(row)
    return found


if __name__ == "__main__":
    main()
