"""What training will need of each rank's memory, before anything starts. No torch: `plan` calls it.

Two levels. `state_bytes` is the ZeRO paper's own arithmetic on a number of parameters (arXiv 1910.02054, section 3 and
Tables 1 and 2), under a named accounting. `predict` is this library's: flat groups with their padding, the tree of
gradient sums, gathered blocks, activations and logits, for a given decoder and recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache

from stages.model.config import DecoderConfig
from stages.model.footprint import RUNTIME_BYTES
from stages.model.shapes import tensor_shapes
from stages.training.activations import activations
from stages.training.layout import Group, arrange
from stages.training.peak import Setting, collection, most_gradients, step_peak
from stages.training.recipe import Execution, Recipe, Training

SCRATCH_BYTES = 1 << 20  # of kernels, which pack what they multiply


@dataclass(frozen=True)
class Accounting:
    """Bytes per parameter of the three kinds of model state."""

    parameters: int
    gradients: int
    optimizer: int  # master weights and moments


PAPER = Accounting(2, 2, 12)  # half-precision parameters and gradients, float32 master weights and moments
FLOAT32 = Accounting(4, 4, 8)  # the parameters are the master weights
BFLOAT16 = Accounting(2, 4, 12)  # gradients summed in float32, as BLOOM's were: this library's with bfloat16


def state_bytes(parameters: float, zero_stage: int, ranks: int, accounting: Accounting = PAPER) -> float:
    """Bytes of model states per rank: what a stage shares out is divided by the number of ranks."""
    return parameters * _per_parameter(zero_stage, ranks, accounting)


def largest_model(memory_bytes: float, zero_stage: int, ranks: int, accounting: Accounting = PAPER) -> float:
    """Parameters of the largest model whose states fit into `memory_bytes` on each rank."""
    return memory_bytes / _per_parameter(zero_stage, ranks, accounting)


def _per_parameter(zero_stage: int, ranks: int, accounting: Accounting) -> float:
    shared = (accounting.optimizer, accounting.gradients, accounting.parameters)
    return sum(size / ranks if stage <= zero_stage else size for stage, size in enumerate(shared, start=1))


@dataclass(frozen=True)
class Needed:
    """Bytes of one rank by part. The first four are exact; the others bound what is there at most."""

    parameters: int
    gradients: int  # at most between micro-batches: sums, on several levels of the tree
    master: int  # float32 weights, where training computes with others
    optimizer: int  # float32 moments
    transient: int  # what a step has at its peak beyond those: activations, gathered blocks, what is exchanged
    checkpoint: int  # copies that rank 0 writes while training goes on
    runtime: int = RUNTIME_BYTES

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def parts(self) -> Mapping[str, int]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def predict(model: DecoderConfig, recipe: Recipe, execution: Execution, ranks: int | None = None) -> Needed:
    """Bytes that the rank with the most needs to train `model` by `recipe`; `ranks`: if other than asked.

    What is offloaded to files counts as the stretch of it that is in memory at a time.
    """
    ranks, zero_stage = ranks or execution.ranks, execution.zero_stage
    groups = groups_of(model)
    element = 4 if recipe.precision == "float32" else 2
    sizes = [one.padded(ranks) for one in groups]
    padded, largest = sum(sizes), max(sizes)
    share = ranks if zero_stage else 1  # what a rank owns of the optimizer's states is 1 / share
    parameters = element * padded // (ranks if zero_stage == 3 else 1)
    optimizer_in_files, parameters_in_files = (
        execution.offload_optimizer == "file",
        execution.offload_parameters == "file",
    )
    in_order = recipe.free_order_ranks is None
    settings = [
        Setting(groups, ranks, zero_stage, element, execution.bucket_bytes, size // recipe.micro_batch_size, in_order)
        for size in recipe.batch_sizes
    ]
    kept = activations(model, recipe, execution)
    gradients = max(most_gradients(setting) for setting in settings)
    # In memory of what is in files: the group at work.
    window = (8 if element == 4 else 12) * largest // share if optimizer_in_files else 0
    window += element * largest // ranks if parameters_in_files else 0
    peak = window + max(*(step_peak(setting, kept) for setting in settings), collection(settings[-1]))
    return Needed(
        parameters=0 if parameters_in_files else parameters,
        gradients=gradients,
        master=0 if optimizer_in_files or element == 4 else 4 * padded // share,
        optimizer=0 if optimizer_in_files else 8 * padded // share,
        transient=max(0, peak - gradients) + peak // 32 + SCRATCH_BYTES,
        checkpoint=min(execution.checkpoint_buffer_bytes, 12 * padded),
    )


def lighter(execution: Training) -> Iterator[dict[str, object]]:
    """Fields of `execution` by which training needs less memory, mildest change first: higher stages, then computing
    activations again, then files. Each comes as what differs from `execution`; none changes a bit of the result."""
    modes = ("none", "selective", "full")
    highest = 3 if execution.free_order_ranks is None else 1
    stages = range(execution.zero_stage, highest + 1) if execution.ranks > 1 else [execution.zero_stage]
    candidates: list[dict[str, object]] = [
        {"zero_stage": stage, "recompute": mode, "recompute_every": execution.recompute_every if mode == now else 1}
        for now in [execution.recompute]
        for mode in modes[modes.index(now) :]
        for stage in stages
    ]
    full = {"recompute": "full", "recompute_every": 1, "offload_optimizer": "file"}
    candidates += [full | {"zero_stage": stage} for stage in stages]
    candidates += [full | {"offload_activations": "file", "zero_stage": stage} for stage in stages]
    if highest == 3:
        candidates += [full | {"offload_activations": "file", "offload_parameters": "file", "zero_stage": 3}]
    for candidate in candidates:
        changed = {name: value for name, value in candidate.items() if getattr(execution, name) != value}
        if changed:
            yield changed


@cache
def groups_of(model: DecoderConfig) -> list[Group]:
    """The groups that a decoder's parameters will lie in."""
    shapes = tensor_shapes(model)
    blocks: list[list[str]] = [[] for _ in range(model.layers)]
    for name in shapes:
        if name.startswith("blocks."):
            blocks[int(name.split(".", 2)[1])].append(name)
    stem = [name for name in shapes if name.startswith(("word_embeddings", "position_embeddings"))]
    head = [name for name in shapes if name.startswith(("ln_f", "lm_head"))]
    head += ["word_embeddings.weight"] if model.tied_head else []
    return arrange(shapes, blocks, stem, head)
