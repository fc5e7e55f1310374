"""The memory that `plan` demands for a rank, compared with the peak of its process, over a grid of settings.

    python -m benchmarks.memory_plan [--quick]

Every setting trains a decoder for a few steps in new processes, which have imported torch and Ray, with the default
allocator, and saves a checkpoint after every step. The peak is the highest resident set of the rank with the most
memory (VmHWM), less what its process had before training. It is compared with the plan less the planner's constant for
that process; "with it" adds the constant to both. Prints a table and one line of JSON. Exits with 1 if a plan and its
peak differ by more than the factor `MARGIN`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from stages.base import Rank
from stages.model.config import DecoderConfig
from stages.training import memory_plan
from stages.training.recipe import Execution, Recipe
from stages.training.task import Loss, Task, TrainingSpec

MARGIN = 1.15
FILES: dict[str, Any] = {"offload_optimizer": "file", "recompute": "full", "offload_activations": "file"}
GRID: list[dict[str, Any]] = [
    *({"ranks": ranks, "zero_stage": stage} for ranks in (1, 2) for stage in range(4) if ranks > 1 or stage < 2),
    {"ranks": 1, "micro_batch_size": 8},
    {"ranks": 1, "sequence_length": 512, "micro_batch_size": 1},
    {"ranks": 1, "sequence_length": 256, "recompute": "full"},
    {"ranks": 1, "sequence_length": 256, "recompute": "selective"},
    {"ranks": 1, "vocab_size": 30_000},
    {"ranks": 2, "vocab_size": 30_000, "zero_stage": 2},
    {"ranks": 1, "precision": "bfloat16"},
    {"ranks": 2, "precision": "bfloat16", "zero_stage": 3},
    {"ranks": 1, "global_batch_size": 16},
    {"ranks": 1, **FILES},
    {"ranks": 2, "zero_stage": 3, "offload_parameters": "file", **FILES},
    {"ranks": 1, "checkpoint_buffer_bytes": 0},
    {"ranks": 1, "hidden_size": 768, "layers": 3},
]  # fmt: skip


class Silent:
    """A reporter that reports nothing."""

    def progress(self, done: float, total: float, unit: str = "", /, **info: float | str) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None: ...

    def note(self, message: str) -> None: ...

    def stopping(self) -> bool:
        return False


def setting(fields: dict[str, Any]) -> tuple[DecoderConfig, Recipe, Execution]:
    """The decoder, the recipe and the execution of one row of the grid."""
    model: dict[str, Any] = {"vocab_size": 8192, "hidden_size": 512, "layers": 4, "heads": 8, "initial_deviation": 0.02}
    recipe: dict[str, Any] = {
        "steps": 3, "global_batch_size": 8, "micro_batch_size": 2, "sequence_length": 128, "validation_every": 2,
        "validation_samples": 4,
    }  # fmt: skip
    execution: dict[str, Any] = {"checkpoint_every_steps": 1, "checkpoint_every_s": 1e9}
    for values, kind in ((model, DecoderConfig), (recipe, Recipe), (execution, Execution)):
        values |= {name: value for name, value in fields.items() if name in kind.model_fields}
    return DecoderConfig(**model), Recipe(**recipe), Execution(**execution)


def build(recipe: Recipe, config: DecoderConfig) -> Task:
    """The task of predicting random tokens."""
    import torch

    from stages.model.decoder import Decoder
    from stages.model.initialise import initial_values
    from stages.training.language_modelling import next_token_loss

    with torch.device("meta"):
        decoder = Decoder(config)

    def loss(model: Any, samples: Sequence[int]) -> Loss:
        generator = torch.Generator().manual_seed(samples[0])
        shape = (len(samples), recipe.sequence_length + 1)
        tokens = torch.randint(0, config.vocab_size, shape, generator=generator)
        found = next_token_loss(model, (tokens[:, :-1], tokens[:, 1:], torch.zeros_like(tokens[:, 1:])), True)
        return Loss(found.total, found.targets)

    return Task(
        decoder, partial(initial_values, config, recipe.seed), list(decoder.blocks), loss, loss, 100,
        stem=[decoder.word_embeddings, decoder.word_embeddings_layernorm], head=[decoder.word_embeddings, decoder.ln_f],
    )  # fmt: skip


def measure(index: int, rendezvous: str, fields: dict[str, Any], folder: str, answers: Any) -> None:
    """Train on one rank, in its own process."""
    from stages.training.loop import train

    config, recipe, execution = setting(fields)
    rank = Rank(index, execution.ranks, rendezvous, Silent())
    result = train(rank, TrainingSpec(partial(build, config=config), "random", recipe, execution, folder))
    answers.put(dict(result.memory))


def row(context: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """The plan of one setting, and the measured memory of the rank with the highest peak."""
    config, recipe, execution = setting(fields)
    with tempfile.TemporaryDirectory() as folder:
        answers: Any = context.SimpleQueue()
        rendezvous = f"file://localhost{folder}/ranks"
        processes = [
            context.Process(target=measure, args=(index, rendezvous, fields, folder, answers))
            for index in range(execution.ranks)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise SystemExit(f"{fields}: a rank failed")
        found = max((answers.get() for _ in processes), key=lambda memory: int(memory["process_peak"]))
    needed = memory_plan.predict(config, recipe, execution)
    ratio = needed.total / (found["process_peak"] - found["bare"] + needed.runtime)
    planned = needed.total - needed.runtime
    return {"setting": fields, "planned": planned, "ratio": ratio, "parts": dict(needed.parts), "measured": found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every third setting: about half a minute")
    asked = parser.parse_args()
    context = multiprocessing.get_context("forkserver")  # processes are forked from one that has imported torch and Ray
    context.set_forkserver_preload(["ray", "stages.training.loop", "stages.model.decoder", "torch.utils.checkpoint"])
    rows = []
    print(f"{'MB beyond the bare process':<72}{'planned':>9}{'peak':>8}{'ratio':>7}{'with it':>9}")
    for fields in GRID[:: 3 if asked.quick else 1]:
        one = row(context, fields)
        rows.append(one)
        name = " ".join(f"{key}={value}" for key, value in fields.items())
        planned, peak = one["planned"], one["measured"]["process_peak"] - one["measured"]["bare"]
        print(
            f"{name:<72}{planned / 1e6:>9.0f}{peak / 1e6:>8.0f}{planned / peak:>7.2f}{one['ratio']:>9.2f}", flush=True
        )
    ratios = [one["ratio"] for one in rows]
    print(f"The plan is {min(ratios):.2f} to {max(ratios):.2f} times the peak of the process.")
    import torch

    versions = {"torch": torch.__version__, "python": platform.python_version()}
    print(json.dumps({"quick": asked.quick, "versions": versions, "rows": rows}))
    return 0 if min(ratios) >= 1 and max(ratios) <= MARGIN else 1


if __name__ == "__main__":
    sys.exit(main())
