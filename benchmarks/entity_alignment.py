"""Entity alignment: MEAformer against its rivals on the same inputs, with the same budget and seeds.

    python benchmarks/entity_alignment.py --quick                      # a simulated pair and few epochs: under a minute
    python benchmarks/entity_alignment.py accuracy --pair zh_en --entities 3000 --seeds 3      # part of DBP15K
    python benchmarks/entity_alignment.py accuracy --pair zh_en --entities 3000 --surface      # with names
    python benchmarks/entity_alignment.py noise --seeds 3              # a simulated pair, some images swapped
    python benchmarks/entity_alignment.py noise --corruption noise     # with images that are noise
    python benchmarks/entity_alignment.py scale --entities 1000000     # search among a million entities
    python benchmarks/entity_alignment.py scale --entities 100000 --step approximate   # the whole evaluation step
    python benchmarks/entity_alignment.py settings --pair zh_en --entities 1000 --surface   # few seeds, iterative, none
    python benchmarks/entity_alignment.py released --released FOLDER   # the paper's code, of which FOLDER is a clone

Each prints a table, and one line of JSON at the end. A part of DBP15K keeps the links whose entities have the most
triples, and the triples between what is kept. DBP15K is that of BLOOMLINE_TEST_DATA (default ../shared/data).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import entity_alignment_released, entity_alignment_scale
from benchmarks.entity_alignment_released import Quiet
from stages.entity_alignment import simulated_pair
from stages.entity_alignment.graphs import Array, Pair
from stages.entity_alignment.modalities import Inputs, inputs_of
from stages.entity_alignment.model import embedded, name_vectors
from stages.entity_alignment.problems import Problems
from stages.entity_alignment.ranking import ranks
from stages.entity_alignment.read_pair import read_folder
from stages.entity_alignment.settings import MODALITIES, Modality, ModelSettings, TrainingSettings
from stages.entity_alignment.sources import PairFolder, SimulatedPair
from stages.entity_alignment.splits import random_split
from stages.entity_alignment.training import Trainer

DATA = Path(os.environ.get("BLOOMLINE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
# Of Student's distribution, by degrees of freedom.
T_95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}
METHODS: Mapping[str, Mapping[str, Any]] = {
    "MEAformer": {"fusion": "meta"},
    "MEAformer, images doubted": {"fusion": "meta", "doubted": ("image",)},
    "EVA-like": {"fusion": "global"},
    "MCLEA-like": {"fusion": "early"},
    "concatenation": {"fusion": "concatenation"},
    "GCN-Align-like": {"fusion": "concatenation", "structure": "convolution", "modalities": ("graph",)},
    "names alone": {"fusion": "names"},
}
SETTINGS: Mapping[
    str, tuple[float, Mapping[str, Any]]
] = {  # share of the links that are seeds, and the training's fields
    "5 % seeds": (0.05, {}),
    "10 % seeds": (0.1, {}),
    "20 % seeds": (0.2, {}),
    "30 % seeds": (0.3, {}),
    "30 % seeds, iterative": (0.3, {"iterative_epochs": 100}),
    "unsupervised": (0.3, {"unsupervised": "character"}),
}
WEIGHTED = ("MEAformer", "MEAformer, images doubted", "EVA-like")  # that the noise is measured with


def part(pair: Pair, entities: int) -> Pair:
    """The links whose entities have the most triples, as many as `entities` on both sides together, and what they say
    of each other."""
    degrees = np.bincount(pair.triples[:, [0, 2]].flatten(), minlength=pair.size)
    order = np.argsort(-np.minimum(*degrees[pair.links].T), kind="stable")[: entities // 2]
    links = pair.links[np.sort(order)]
    kept = np.sort(links.flatten())
    place = np.full(pair.size, -1)
    place[kept] = np.arange(len(kept))
    triples = pair.triples[(place[pair.triples[:, [0, 2]]] >= 0).all(axis=1)]
    middle = len(pair.entities[0])
    names, labels = [[*one[0], *one[1]] for one in (pair.entities, pair.labels)]
    sides: tuple[Array, Array] = (kept[kept < middle], kept[kept >= middle])
    return replace(
        pair,
        entities=tuple([names[one] for one in side] for side in sides),  # type: ignore[arg-type]
        labels=tuple([labels[one] for one in side] for side in sides),  # type: ignore[arg-type]
        triples=np.column_stack([place[triples[:, 0]], triples[:, 1], place[triples[:, 2]]]),
        links=place[links],
        splits=np.zeros(len(links), np.int64),
    )


def run(
    name: str,
    pair: Pair,
    modalities: tuple[Modality, ...],
    options: argparse.Namespace,
    seed: int,
    training: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One training of a method, with further fields of `training`, and its accuracy on the test links."""
    settings = ModelSettings(**{"modalities": modalities, "width": options.width, **METHODS[name]})
    if (settings.fusion == "names" and "character" not in modalities) or not set(settings.doubted) <= set(modalities):
        return {}
    inputs = inputs_of(pair, settings.modalities, settings.doubted)
    links = torch.from_numpy(pair.links_of("test"))
    started, epochs = time.process_time(), 0
    if settings.fusion == "names":
        vectors = name_vectors(inputs)
        weights = torch.empty(pair.size, 0)
    else:
        vectors, weights, epochs = _train(settings, pair, inputs, options, seed, training or {})
    seconds = (time.process_time() - started) / max(1, epochs)
    found = ranks(vectors[links[:, 0]].numpy(), vectors[links[:, 1]].numpy(), 3)
    bad = pair.corrupted.get("image")
    image = inputs.modalities.index("image") if "image" in inputs.modalities else None
    return {
        "hits_at_1": float((found.forward <= 1).mean()),
        "hits_at_10": float((found.forward <= 10).mean()),
        "mrr": float((1 / found.forward).mean()),
        "cpu_seconds_an_epoch": seconds,
        **(
            {"weight_of_noise": float(weights[bad, image].mean()), "weight": float(weights[:, image].mean())}
            if bad is not None and image is not None and weights.numel()
            else {}
        ),
    }


def _train(
    settings: ModelSettings,
    pair: Pair,
    inputs: Inputs,
    options: argparse.Namespace,
    seed: int,
    changed: Mapping[str, Any],
) -> tuple[torch.Tensor, torch.Tensor, int]:
    training = TrainingSettings(
        epochs=options.epochs, batch_size=options.batch_size, learning_rate=options.learning_rate, seed=seed, **changed
    )
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(settings, training, pair, inputs, Path(scratch))
        trainer.run(Quiet())
    return *embedded(trainer.model, inputs, torch.arange(pair.size)), trainer.epochs


def accuracy(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every method and seed on a part of DBP15K."""
    modalities: tuple[Modality, ...] = ("relation", "graph", *(("character",) if options.surface else ()))
    yield from _runs(options, {options.pair: _dbp15k(options)}, modalities, options.methods)


def settings(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """MEAformer on a part of DBP15K: few seeds, iterative, and without any; the last one needs names."""
    modalities: tuple[Modality, ...] = ("relation", "graph", *(("character",) if options.surface else ()))
    pair = _dbp15k(options)
    for name, (share, training) in SETTINGS.items():
        if "unsupervised" in training and not options.surface:
            continue
        for seed in range(options.seeds):
            found = run("MEAformer", random_split(pair, share, 0.1, seed), modalities, options, seed, training)
            yield {"data": options.pair, "method": name, "seed": seed, **found}


def _dbp15k(options: argparse.Namespace) -> Pair:
    """DBP15K, or the part of it that is asked for."""
    names = DATA / "dbp15k" / "translated_ent_name" / f"dbp_{options.pair}.json"
    folder = PairFolder(path=DATA / "dbp15k" / options.pair, names=names)
    whole, _ = read_folder(folder, {}, Problems("refuse"))
    return part(whole, options.entities) if options.entities else whole


def noise(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """MEAformer and EVA-like on simulated pairs in which the images of some entities are not theirs."""
    pairs = {
        f"{share:.0%} {options.corruption}": simulated_pair.make(
            SimulatedPair(entities=options.entities or 400, corrupted_images=share, corruption=options.corruption)
        )
        for share in options.shares
    }
    modalities = tuple(m for m in MODALITIES if m in ("image", "attribute", "relation", "graph"))
    yield from _runs(options, pairs, modalities, [one for one in options.methods if one in WEIGHTED])


def _runs(
    options: argparse.Namespace, pairs: Mapping[str, Pair], modalities: tuple[Modality, ...], methods: list[str]
) -> Iterator[dict[str, Any]]:
    for data, pair in pairs.items():
        for seed in range(options.seeds):  # the methods take turns
            for method in methods:
                found = run(method, random_split(pair, 0.3, 0.1, seed), modalities, options, seed)
                if found:
                    yield {"data": data, "method": method, "seed": seed, **found}


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, each with half of the 95 % interval of the mean."""
    lines = [
        "| data | method | seeds | Hits@1 | Hits@10 | MRR | CPU seconds an epoch | weight of noisy images / of all |"
    ]
    lines.append("|" + "---|" * 8)
    for data, method in dict.fromkeys((row["data"], row["method"]) for row in rows):
        of = [row for row in rows if (row["data"], row["method"]) == (data, method)]

        def percent(key: str, of: list[dict[str, Any]] = of) -> str:
            values = 100 * np.array([row[key] for row in of])
            n = len(values)
            half = T_95.get(n - 1, 2.0) * values.std(ddof=1) / np.sqrt(n) if n > 1 else float("nan")
            return f"{values.mean():.1f} ± {half:.1f}" if n > 1 else f"{values.mean():.1f}"

        seconds = np.mean([row["cpu_seconds_an_epoch"] for row in of])
        weights = ""
        if "weight" in of[0]:
            weights = " / ".join(f"{np.mean([row[key] for row in of]):.3f}" for key in ("weight_of_noise", "weight"))
        cells = [data, method, str(len(of)), percent("hits_at_1"), percent("hits_at_10"), percent("mrr")]
        lines.append("| " + " | ".join([*cells, f"{seconds:.2f}", weights]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", choices=("accuracy", "noise", "settings", "scale", "released"), nargs="?", default="noise"
    )
    parser.add_argument("--quick", action="store_true", help="a small simulated pair, few epochs, one seed")
    parser.add_argument("--pair", default="zh_en", help="a folder of DBP15K")
    parser.add_argument(
        "--entities", type=int, default=0, help="of the part of DBP15K, or a simulated side; 0: default"
    )
    parser.add_argument("--surface", action="store_true", help="with the character bigrams of the translated names")
    parser.add_argument("--corruption", choices=("noise", "swapped"), default="swapped", help="of the images")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.3, 0.6], help="of images that are corrupted")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=3500)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--queries", type=int, default=2000, help="scale: entities that are searched with")
    parser.add_argument("--step", choices=("exact", "approximate"), help="scale: the whole evaluation step instead")
    parser.add_argument("--folder", type=Path, help="scale: of the temporary files with vectors")
    parser.add_argument("--image-noise", type=float, default=1.5, help="released: of the simulated pair")
    parser.add_argument("--dropped", type=float, default=0.5, help="released: edges and attributes that a side lacks")
    parser.add_argument("--released", type=Path, help="released: the folder of the clone")
    options = parser.parse_args()
    if options.what == "released" and not (options.released and (options.released / "model/MEAformer.py").exists()):
        parser.exit(2, f"{entity_alignment_released.WHERE}\n")
    if options.quick:
        options.epochs, options.seeds, options.width, options.queries = 15, 1, 32, 500
        options.entities = 20_000 if options.what == "scale" else 120
        options.what = options.what if options.what in ("scale", "released") else "noise"
    torch.set_num_threads(1)
    rows = []
    tables = {"scale": entity_alignment_scale.table, "released": entity_alignment_released.table}
    verbs = {
        "accuracy": accuracy,
        "noise": noise,
        "settings": settings,
        "scale": entity_alignment_scale.scale,
        "released": entity_alignment_released.compare,
    }
    for row in verbs[options.what](options):
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    print(tables.get(options.what, table)(rows))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    paths = {"folder": str(options.folder), "released": str(options.released)}
    print(json.dumps({"options": vars(options) | paths, "peak_memory_mib": round(peak), "runs": rows}))


if __name__ == "__main__":
    main()
