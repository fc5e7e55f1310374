"""Entity alignment against the released code of MEAformer: the same pair, splits, batches, optimizer and schedule.

The released code (github.com/zjukg/MEAformer, MIT; commit a247a49 was compared) is imported from a folder of the user.
Each training is a separate process with one thread, and the two codes take turns, seed by seed:

    same weights    both begin with our initial parameters, without dropout, and with uncertainties as released
    own weights     each with its own initial parameters and dropout, and ours with its default uncertainties

The released code also adds the log-variances of the absent names to its loss. Their constant gradient changes the norm
that is clipped. With the same weights it is set to 0, so that both codes compute the same; with own weights it stays.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from stages.entity_alignment import simulated_pair
from stages.entity_alignment.graphs import Pair
from stages.entity_alignment.modalities import Inputs, inputs_of
from stages.entity_alignment.model import AlignmentModel, embedded
from stages.entity_alignment.ranking import ranks
from stages.entity_alignment.settings import ModelSettings, TrainingSettings
from stages.entity_alignment.sources import SimulatedPair
from stages.entity_alignment.sparse import SparseRows
from stages.entity_alignment.splits import random_split
from stages.entity_alignment.training import Trainer

WHERE = (
    "give --released FOLDER, a clone of the released code of MEAformer from https://github.com/zjukg/MEAformer "
    "(MIT; commit a247a49 was compared)"
)
CODES, WEIGHTS = ("released", "here"), ("same", "own")
RELATIONS = 1000  # inputs of the projection of relations in the released code
NAMES = 2  # log-variances of the released code for modalities that the pair has not
OWN_SEED = 1000  # added to the seed of the released code, so that its initial weights are others than ours
COLUMNS = (("hits_at_1", 100, 1), ("mrr", 100, 1), ("cpu_seconds_an_epoch", 1, 2), ("peak_memory_mib", 1, 0))
PREFIX = "multimodal_encoder."
# Our names of parameters, without `weight` and `bias`, and those of the released code.
MODULES = {
    "projections.image": f"{PREFIX}img_fc",
    "projections.attribute": f"{PREFIX}att_fc",
    "projections.relation": f"{PREFIX}rel_fc",
    "fusion.layers.0.query": f"{PREFIX}fusion.fusion_layer.0.attention.self.query",
    "fusion.layers.0.key": f"{PREFIX}fusion.fusion_layer.0.attention.self.key",
    "fusion.layers.0.value": f"{PREFIX}fusion.fusion_layer.0.attention.self.value",
    "fusion.layers.0.output": f"{PREFIX}fusion.fusion_layer.0.attention.output.dense",
    "fusion.layers.0.attention_norm": f"{PREFIX}fusion.fusion_layer.0.attention.output.LayerNorm",
    "fusion.layers.0.inner": f"{PREFIX}fusion.fusion_layer.0.intermediate.dense",
    "fusion.layers.0.outer": f"{PREFIX}fusion.fusion_layer.0.output.dense",
    "fusion.layers.0.outer_norm": f"{PREFIX}fusion.fusion_layer.0.output.LayerNorm",
}
PARAMETERS = {
    "structure.embedding": f"{PREFIX}entity_emb.weight",
    **{f"structure.layers.{n}.weight": f"{PREFIX}cross_graph_model.layer_stack.{n}.w" for n in (0, 1)},
    **{f"structure.layers.{n}.attention": f"{PREFIX}cross_graph_model.layer_stack.{n}.a_src_dst" for n in (0, 1)},
    "log_variances": "multi_loss_layer.log_vars",
    **{f"{ours}.{end}": f"{theirs}.{end}" for ours, theirs in MODULES.items() for end in ("weight", "bias")},
}


class Quiet:
    """Reports nothing."""

    def progress(self, done: float, total: float, unit: str = "", /, **info: float | str) -> None: ...
    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None: ...
    def note(self, message: str) -> None: ...

    def stopping(self) -> bool:
        return False


def as_released(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our parameters under the names of the released code, which orders the log-variances the other way round (graph,
    relation, attribute, image) and has those of names after them. The shapes remain ours."""
    found = {PARAMETERS[name]: value for name, value in ours.items()}
    log_variances = PARAMETERS["log_variances"]
    found[log_variances] = torch.cat([found[log_variances].flip(0), torch.zeros(NAMES)])
    return found


def settings_of(options: Mapping[str, Any]) -> tuple[ModelSettings, TrainingSettings]:
    same = options["weights"] == "same"
    return (
        ModelSettings(width=options["width"], dropout=0.0 if same else 0.1),
        TrainingSettings(
            epochs=options["epochs"],
            batch_size=options["batch_size"],
            learning_rate=options["learning_rate"],
            uncertainty="as_released" if same else "by_modality",
            selection="last",
            seed=options["seed"],
        ),
    )


def pair_of(options: Mapping[str, Any]) -> Pair:
    made = {field: options[field] for field in ("entities", "image_noise", "dropped")}
    return random_split(simulated_pair.make(SimulatedPair(**made)), 0.3, 0.1, options["seed"])


def padded(inputs: Inputs) -> Inputs:
    """With as many columns of relations as the released code needs, so that both projections have the same shape."""
    rows = inputs.features["relation"]
    assert isinstance(rows, SparseRows)
    wide = SparseRows(replace(rows.places, width=RELATIONS), rows.values)
    return replace(inputs, features=inputs.features | {"relation": wide})


def trained_here(pair: Pair, inputs: Inputs, options: Mapping[str, Any]) -> tuple[Tensor, float, list[float]]:
    """The joint vectors of all entities, CPU seconds of the training, and the loss of each epoch."""
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(*settings_of(options), pair, inputs, Path(scratch))
        began = time.process_time()
        trainer.run(Quiet())
        seconds = time.process_time() - began
    return embedded(trainer.model, inputs, torch.arange(pair.size))[0], seconds, trainer.progress.losses


def trained_released(pair: Pair, inputs: Inputs, options: Mapping[str, Any]) -> tuple[Tensor, float, list[float]]:
    """What `trained_here` returns, by the released model in a plain loop with its optimizer, schedule and clipping."""
    model_settings, settings = settings_of(options)
    model = _released(pair, inputs, model_settings, options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    links = torch.from_numpy(pair.links_of("train"))
    total = math.ceil(len(links) / settings.batch_size) * settings.epochs
    schedule = _cosine(optimizer, int(total * settings.warm_up), total)
    losses = []
    model.train()
    began = time.process_time()
    for epoch in range(settings.epochs):
        order = torch.from_numpy(np.random.default_rng((settings.seed, epoch)).permutation(len(links)))
        of_epoch = 0.0
        for batch in order.split(settings.batch_size):
            loss, _ = model(links[batch])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimizer.step()
            schedule.step()
            model.zero_grad(set_to_none=True)
            of_epoch += float(loss.detach()) * len(batch)
        losses.append(of_epoch / len(links))
    seconds = time.process_time() - began
    model.eval()
    with torch.no_grad():
        return F.normalize(model.joint_emb_generat(only_joint=True)[0]), seconds, losses


def _released(pair: Pair, inputs: Inputs, settings: ModelSettings, options: Mapping[str, Any]) -> Any:
    """The released model on the CPU, with the settings of its runs on DBP15K apart from the width."""
    sys.path.insert(0, options["released"])
    torch.Tensor.cuda = nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[assignment, method-assign]
    from model.MEAformer import MEAformer
    from src.utils import get_adjr

    dimensions = dict.fromkeys(("attr_dim", "img_dim", "name_dim", "char_dim", "hidden_size"), settings.width)
    switches = dict.fromkeys(("w_gcn", "w_rel", "w_attr", "w_name", "w_char", "w_img"), True)
    arguments = Namespace(
        **dimensions, **switches,
        batch_size=options["batch_size"], hidden_units=",".join([str(settings.width)] * 3), heads="2,2",
        structure_encoder="gat", dropout=0.0, attn_dropout=0.0, instance_normalization=False, use_project_head=False,
        intermediate_size=settings.intermediate, use_intermediate=1, num_attention_heads=1, num_hidden_layers=1,
        inner_view_num=6, with_weight=1, tau=0.1, ab_weight=0.5, replay=0, neg_cross_kg=0,
    )  # fmt: skip
    images = pair.vectors["image"]
    assert np.array_equal(images.entities, np.arange(pair.size))
    bags = {name: inputs.features[name] for name in ("relation", "attribute")}
    dense = {m: rows.places.matrix(rows.values).to_dense() for m, rows in bags.items() if isinstance(rows, SparseRows)}
    graphs = {
        "ent_num": pair.size, "images_list": images.values, "rel_features": dense["relation"],
        "att_features": dense["attribute"], "name_features": None, "char_features": None,
        "input_idx": torch.arange(pair.size), "adj": get_adjr(pair.size, pair.triples.tolist(), norm=True),
    }  # fmt: skip
    torch.manual_seed(options["seed"] + OWN_SEED)
    model = MEAformer(graphs, arguments)
    if options["weights"] == "same":
        _begin_as_here(model, settings, inputs, options["seed"])
    return model


@torch.no_grad()
def _begin_as_here(model: nn.Module, settings: ModelSettings, inputs: Inputs, seed: int) -> None:
    """Our initial parameters, no dropout, and no gradient of the log-variances of names."""
    torch.manual_seed(seed)
    parameters = dict(model.named_parameters())
    for name, value in as_released(AlignmentModel(settings, inputs).state_dict()).items():
        one = parameters.pop(name)
        one.copy_(value.reshape(one.shape))
        if name == PARAMETERS["log_variances"]:
            used = torch.arange(len(one)) < len(one) - NAMES
            one.register_hook(lambda gradient, used=used: gradient * used)
    assert all(name.startswith((f"{PREFIX}name_fc.", f"{PREFIX}char_fc.")) for name in parameters), parameters.keys()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def _cosine(optimizer: torch.optim.Optimizer, warm_up: int, total: int) -> Any:
    from transformers import get_cosine_schedule_with_warmup  # what the released code calls; ours does not need it

    return get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=warm_up, num_training_steps=total)


def one(options: Mapping[str, Any]) -> dict[str, Any]:
    """One training, in this process. The vectors are written to the file `vectors`."""
    torch.set_num_threads(1)
    pair = pair_of(options)
    inputs = padded(inputs_of(pair, None))
    train = trained_released if options["code"] == "released" else trained_here
    vectors, seconds, losses = train(pair, inputs, options)
    np.save(options["vectors"], vectors.numpy())
    return {
        "cpu_seconds_an_epoch": seconds / options["epochs"],
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "loss": losses[-1],
    }


def compare(options: Namespace) -> Iterator[dict[str, Any]]:
    """A row for each kind of weights, seed and code; ours also says how far its joint vectors are from the other's."""
    shared = {
        "entities": options.entities or 1500, "image_noise": options.image_noise, "dropped": options.dropped,
        "released": str(options.released.resolve()), "epochs": options.epochs, "width": options.width,
        "batch_size": options.batch_size, "learning_rate": options.learning_rate,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for seed, weights in itertools.product(range(options.seeds), WEIGHTS):
            vectors = {}
            for code in CODES:
                path = Path(folder) / f"{code}.npy"
                asked = shared | {"weights": weights, "seed": seed, "code": code, "vectors": str(path)}
                measured = _in_a_process(asked)
                vectors[code] = np.load(path)
                links = pair_of(asked).links_of("test")
                found = ranks(vectors[code][links[:, 0]], vectors[code][links[:, 1]], 3).forward
                row = {"weights": weights, "seed": seed, "code": code, "test_links": len(links)}
                row |= {"hits_at_1": float((found <= 1).mean()), "mrr": float((1 / found).mean())} | measured
                if code == "here":
                    apart = np.abs(vectors["here"] - vectors["released"])
                    row |= {"largest_difference": float(apart.max()), "mean_difference": float(apart.mean())}
                yield row


def _in_a_process(asked: Mapping[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.entity_alignment_released", json.dumps(asked)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[1]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment, cwd=root)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])  # the released code prints too
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds with half of the 95 % interval of the mean, and the same of the differences of each seed."""
    from stages.exploration.intervals import mean_interval  # imports SciPy, which would count in the measured processes

    lines = ["| weights | code | seeds | Hits@1 | MRR | CPU seconds an epoch | peak memory, MiB |", "|" + "---|" * 7]
    notes = []
    for weights in dict.fromkeys(row["weights"] for row in rows):
        released, here = ([row for row in rows if (row["weights"], row["code"]) == (weights, code)] for code in CODES)
        columns: list[tuple[str, ...]] = [("released", "here", "difference")]
        for key, factor, digits in COLUMNS:
            values = factor * np.array([[row[key] for row in of] for of in (released, here)])
            means = [mean_interval(numbers.tolist()) for numbers in (*values, values[1] - values[0])]
            halves = [f" ± {half:.{digits}f}" if len(here) > 1 else "" for _, half in means]
            columns.append(tuple(f"{mean:.{digits}f}{half}" for (mean, _), half in zip(means, halves, strict=True)))
            if key == "hits_at_1":
                largest = np.abs(values[1] - values[0]).max()
        for name, *cells in zip(*columns, strict=True):
            lines.append(" | ".join((f"| {weights}", name, str(len(here)), *cells)) + " |")
        apart = max(row["largest_difference"] for row in here), np.mean([row["mean_difference"] for row in here])
        notes.append(
            f"{weights} weights: Hits@1 of a seed differs by at most {largest:.2f} points; a value of a joint vector "
            f"by at most {apart[0]:.2g}, {apart[1]:.2g} on average"
        )
    return "\n".join([*lines, *notes])


if __name__ == "__main__":
    print(json.dumps(one(json.loads(sys.argv[1]))))
