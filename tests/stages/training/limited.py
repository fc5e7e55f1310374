"""A training run in a process with limited memory. It is a program, so that the limit ends with the process.

Arguments: a folder, the execution's fields as JSON, and how many bytes of private memory the process may have beyond
what it has with torch loaded and a small model trained (0: any number). Prints the digest of what training leaves.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from stages.model.initialise import normal
from stages.training.loop import train
from stages.training.recipe import Execution, Recipe
from stages.training.task import Task, TrainingSpec
from tests.stages.training import toy

RECIPE = Recipe(steps=2, global_batch_size=2, micro_batch_size=2, sequence_length=8, validation_every=2)
WIDTH, BLOCKS = 512, 12  # 19 million parameters, 302 MB of training state


def build(recipe: Recipe, width: int, blocks: int) -> Task:
    """A wide toy task whose model never exists as a whole."""
    loss, validation_loss = toy.losses(recipe)
    with torch.device("meta"):
        model = toy.Toy(width, blocks)

    def initial(name: str, start: int, stop: int) -> Tensor:
        return normal(1, name, start, stop).mul_(0.05)

    return Task(
        model, initial, list(model.blocks), loss, validation_loss, validation_samples=10,
        metric_names=("zeros",), stem=[model.embedding], head=[model.embedding, model.norm],
    )  # fmt: skip


def data_bytes() -> int:
    """Private writable memory of this process: what RLIMIT_DATA counts."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:"))
    return int(line.split()[1]) << 10


def run(folder: Path, fields: str, width: int, blocks: int) -> Path:
    execution = Execution.model_validate(json.loads(fields))
    spec = TrainingSpec(partial(build, width=width, blocks=blocks), "toy", RECIPE, execution, str(folder))
    return Path(train(toy.single_rank(), spec).checkpoint)


def main(folder: Path, fields: str, allowed_bytes: int) -> None:
    run(folder / "small", fields, 16, 2)
    if allowed_bytes:
        limit = data_bytes() + allowed_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    digest = hashlib.sha256()
    for path in sorted(run(folder / "large", fields, WIDTH, BLOCKS).glob("*.safetensors")):
        with safe_open(path, framework="pt") as reader:
            for name in sorted(reader.keys()):
                digest.update(name.encode() + reader.get_tensor(name).numpy().tobytes())
    print(digest.hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
