"""Memory of ZeRO stages 0 to 3, compared with the closed form, the planner's bound, and FSDP2 in the same run.

    python -m benchmarks.zero_memory [--quick] [--ranks 2]

Measured on every rank: the bytes of the training state, tensor by tensor, which must equal the closed form with
padding; the peak of all tensors in a step beyond them; and what the operating system reports for the process. FSDP2
(`fully_shard`, CPU, gloo, float32, fused AdamW) trains the same decoder on the same batches. Prints a table and one
line of JSON. Exits with 1 if a state differs from the closed form, or a peak exceeds the planner's bound.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from typing import Any

from stages.base import Rank
from stages.model.config import DecoderConfig
from stages.training import memory_plan
from stages.training.recipe import Execution, Recipe

VARIANTS: dict[str, dict[str, Any]] = {
    "ZeRO-0": {"zero_stage": 0},
    "ZeRO-1": {"zero_stage": 1},
    "ZeRO-2": {"zero_stage": 2},
    "ZeRO-3": {"zero_stage": 3},
    "ZeRO-3, recomputed": {"zero_stage": 3, "recompute": "full"},
    "ZeRO-3, files": {
        "zero_stage": 3, "recompute": "full", "offload_optimizer": "file", "offload_parameters": "file",
    },
}  # fmt: skip
PEER = "FSDP2"


def setting(quick: bool) -> tuple[DecoderConfig, Recipe]:
    width, layers = (256, 4) if quick else (512, 8)
    model = DecoderConfig(vocab_size=4099, hidden_size=width, layers=layers, heads=8, initial_deviation=0.02)
    return model, Recipe(global_batch_size=8, micro_batch_size=2, sequence_length=128)


def measure(index: int, ranks: int, rendezvous: str, quick: bool, name: str, answers: Any) -> None:
    """Measure one variant on one rank, in its own process."""
    import torch

    from stages.parallel.process_group import process_group

    torch.set_num_threads(1)
    rank = Rank(index, ranks, rendezvous, None)  # type: ignore[arg-type]
    with process_group(rank, 120) as collectives:
        found = (peer if name == PEER else ours)(collectives, quick, name)
    answers.put(found | {"rank": index})


def ours(collectives: Any, quick: bool, name: str) -> dict[str, Any]:
    import torch

    from stages.model.decoder import Decoder
    from stages.model.initialise import initial_values
    from stages.training import memory_usage
    from stages.training.language_modelling import next_token_loss
    from stages.training.task import Task
    from stages.training.zero import ShardedModel

    config, recipe = setting(quick)
    with torch.device("meta"):
        decoder = Decoder(config)
    task = Task(
        decoder, partial(initial_values, config, 1), list(decoder.blocks), _unused, _unused, 1,
        stem=[decoder.word_embeddings, decoder.word_embeddings_layernorm], head=[decoder.word_embeddings, decoder.ln_f],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        execution = Execution.model_validate({**VARIANTS[name], "ranks": collectives.ranks, "offload_folder": folder})
        model = ShardedModel(task, recipe, execution, collectives)
        model.initialise(task.initial)

        def step(number: int) -> None:
            for turn in model.turns():
                with model.micro_batch(turn):
                    next_token_loss(decoder, batch(config, recipe, turn), False).total.backward()
            model.reduce()
            found.update(memory_usage.held(model))
            model.update(1e-3, 1e-3, number)

        found: dict[str, Any] = {}
        step(1)
        with memory_usage.allocated() as allocated:
            step(2)
        return {**found, "peak": allocated.peak, **memory_usage.process()}


def peer(collectives: Any, quick: bool, name: str) -> dict[str, Any]:
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from stages.model.decoder import Decoder
    from stages.model.initialise import initialise
    from stages.training import memory_usage

    config, recipe = setting(quick)
    decoder = Decoder(config)
    initialise(decoder, 1)
    mesh = init_device_mesh("cpu", (collectives.ranks,))
    for block in decoder.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(decoder, mesh=mesh)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        for turn in range(collectives.rank, recipe.micro_batches, collectives.ranks):
            inputs, targets, _ = batch(config, recipe, turn)
            logits = decoder(inputs).flatten(0, 1)
            torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="sum").backward()
        optimizer.step()

    def local(tensors: Iterable[Any]) -> int:
        """Bytes of distinct storage: the gradients of a group are views of one."""
        storages = [tensor.to_local().untyped_storage() for tensor in tensors]
        return sum({storage.data_ptr(): int(storage.nbytes()) for storage in storages}.values())

    step()
    parameters = list(decoder.parameters())
    found = {
        "parameters": local(parameters),
        "gradients": local(parameter.grad for parameter in parameters),
        "optimizer": local(s[m] for s in optimizer.state.values() for m in ("exp_avg", "exp_avg_sq")),
        "files": 0,
    }
    optimizer.zero_grad()
    with memory_usage.allocated() as allocated:
        step()
    return {**found, "peak": allocated.peak, **memory_usage.process()}


def batch(config: DecoderConfig, recipe: Recipe, number: int) -> Any:
    import torch

    generator = torch.Generator().manual_seed(number)
    shape = (recipe.micro_batch_size, recipe.sequence_length + 1)
    tokens = torch.randint(0, config.vocab_size, shape, generator=generator)
    return tokens[:, :-1], tokens[:, 1:], torch.zeros_like(tokens[:, 1:])


def _unused(*arguments: Any) -> Any:
    raise NotImplementedError


def expected(name: str, quick: bool, ranks: int) -> tuple[dict[str, int], int]:
    """The closed form of the state in memory, and the planner's bound of the peak beyond parameters and optimizer."""
    config, recipe = setting(quick)
    execution = Execution.model_validate({**VARIANTS[name], "ranks": ranks})
    needed = memory_plan.predict(config, recipe, execution)
    padded = sum(group.padded(ranks) for group in memory_plan.groups_of(config))
    share = {"gradients": padded if execution.zero_stage == 0 else padded // ranks}
    held = {
        "parameters": needed.parameters,
        "master": needed.master,
        "optimizer": needed.optimizer,
        "gradients": 4 * share["gradients"],
    }
    return held, needed.gradients + needed.transient


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller model: under a minute")
    parser.add_argument("--ranks", type=int, default=2)
    asked = parser.parse_args()
    context = multiprocessing.get_context("forkserver")  # processes are forked from one that has imported torch
    context.set_forkserver_preload(["stages.training.zero", "stages.model.decoder", "torch.distributed.fsdp"])
    rows, wrong = [], []
    print(f"{'MB on the first rank':<20}{'parameters':>12}{'optimizer':>11}{'gradients':>11}{'files':>9}{'peak':>9}"
          f"{'bound':>9}{'process':>9}")  # fmt: skip
    for name in [*VARIANTS, PEER]:
        rendezvous = f"file://localhost{tempfile.mkdtemp()}/ranks"
        answers: Any = context.SimpleQueue()
        work = [(index, asked.ranks, rendezvous, asked.quick, name, answers) for index in range(asked.ranks)]
        processes = [context.Process(target=measure, args=arguments) for arguments in work]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            print(f"{name}: a rank failed")
            return 1
        found = sorted((answers.get() for _ in processes), key=lambda facts: int(facts["rank"]))
        row = {"variant": name, **found[0], "bound": 0}
        if name != PEER:
            held, row["bound"] = expected(name, asked.quick, asked.ranks)
            wrong += [
                f"{name}: {part} {facts[part]} bytes, expected {size}"
                for facts in found
                for part, size in held.items()
                if facts[part] != size
            ]
            wrong += [f"{name}: peak {facts['peak']} exceeds the bound {row['bound']}" for facts in found
                      if facts["peak"] > row["bound"]]  # fmt: skip
        rows.append(row)
        columns = [row[part] / 1e6 for part in ("parameters", "optimizer", "gradients", "files", "peak", "bound")]
        shown = "".join(f"{value:>{width}.1f}" for value, width in zip(columns, (12, 11, 11, 9, 9, 9), strict=True))
        print(f"{name:<20}{shown}{row.get('process_peak', 0) / 1e6:>9.0f}", flush=True)
    print(
        "\n".join(wrong) or "Every state equals the closed form exactly, and every peak is within the planner's bound."
    )
    import torch

    versions = {"torch": torch.__version__, "python": platform.python_version()}
    print(json.dumps({"ranks": asked.ranks, "quick": asked.quick, "versions": versions, "rows": rows, "wrong": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
