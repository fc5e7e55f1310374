"""What training will need of each rank's memory, before anything starts. No torch: `plan` calls it.

Two levels. `state_bytes` is the ZeRO paper's own arithmetic on a number of parameters (arXiv 1910.02054, section 3 and
Tables 1 and 2), under a named accounting. `predict` is this library's: flat groups with their padding, the tree of
gradient sums, gathered blocks, activations and logits, for a given decoder and recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache

from stages.base import Demand, Resources
from stages.model.config import DecoderConfig
from stages.model.footprint import RUNTIME_BYTES
from stages.model.parameters import parameter_shapes
from stages.training.activations import activations
from stages.training.layout import Group, arrange
from stages.training.peak import Setting, collection, most_gradients, step_peak
from stages.training.recipe import Execution, Recipe, Training

SCRATCH_BYTES = 1 << 20  # of kernels, which pack what they multiply
GPU_RUNTIME_BYTES = 1 << 30  # of a GPU, before the first tensor: CUDA's context, libraries, NCCL's buffers; an estimate


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
    host: int = 0  # what a rank that computes on a GPU has moved to host memory
    runtime: int = RUNTIME_BYTES

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def computing(self) -> int:
        """Of the total, what is in the memory that the rank computes in: a GPU's, if it has one."""
        return self.total - self.checkpoint - self.host - self.runtime

    @property
    def parts(self) -> Mapping[str, int]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def demand(model: DecoderConfig | None, training: Training, task: Resources = Resources(cpus=0)) -> Demand:
    """What a step that trains `model` asks: `task` for its own process, and its ranks. `model` None: not known yet."""
    smaller = range(training.minimum_ranks or training.ranks, training.ranks)
    return Demand(
        task=task,
        ranks=training.ranks,
        rank=_of_rank(model, training, training.ranks),
        fallback_sizes={ranks: _of_rank(model, training, ranks) for ranks in smaller},
    )


def _of_rank(model: DecoderConfig | None, training: Training, ranks: int) -> Resources:
    """What each of so many ranks asks of its node; of a model that is not known, no memory."""
    cpus, gpus = float(training.threads_per_rank), float(training.gpus_per_rank)
    if model is None:
        return Resources(cpus=cpus, gpus=gpus)
    needed = predict(model, training, training, ranks)
    if not gpus:
        return Resources(cpus=cpus, memory_bytes=needed.total)
    on_gpu = needed.computing + GPU_RUNTIME_BYTES
    return Resources(cpus=cpus, gpus=gpus, memory_bytes=needed.total - needed.computing, gpu_memory_bytes=on_gpu)


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
    optimizer_moved, parameters_moved = map(
        execution.moved, (execution.offload_optimizer, execution.offload_parameters)
    )
    # On a GPU the CPU updates what is in host memory; weights on the other side are then copies of the master weights.
    own_master = element != 4 or (execution.gpus_per_rank and optimizer_moved != parameters_moved)
    master, optimizer = 4 * padded // share if own_master else 0, 8 * padded // share
    in_order = recipe.free_order_ranks is None
    settings = [
        Setting(groups, ranks, zero_stage, element, execution.bucket_bytes, size // recipe.micro_batch_size, in_order)
        for size in recipe.batch_sizes
    ]
    kept = activations(model, recipe, execution)
    gradients = max(most_gradients(setting) for setting in settings)
    # In memory of what is in files: the group at work.
    window = (12 if own_master else 8) * largest // share if optimizer_moved else 0
    window += element * largest // ranks if parameters_moved else 0
    host = 0
    if execution.gpus_per_rank:
        # There the CPU works on the group, with its gradient.
        host, window = window + (4 * largest // share if optimizer_moved else 0), 0
        host += optimizer + master if execution.offload_optimizer == "host" else 0
        host += parameters if execution.offload_parameters == "host" else 0
        host += kept.moved if execution.offload_activations == "host" else 0
    peak = window + max(*(step_peak(setting, kept) for setting in settings), collection(settings[-1]))
    return Needed(
        parameters=0 if parameters_moved else parameters,
        gradients=gradients,
        master=0 if optimizer_moved else master,
        optimizer=0 if optimizer_moved else optimizer,
        transient=max(0, peak - gradients) + peak // 32 + SCRATCH_BYTES,
        checkpoint=min(execution.checkpoint_buffer_bytes, 12 * padded),
        host=host,
    )


def cheaper_settings(execution: Training) -> Iterator[dict[str, object]]:
    """Fields of `execution` by which training needs less memory, mildest change first: higher stages, then computing
    activations again, then keeping things elsewhere. Each comes as what differs from `execution`; none changes a bit of
    the result."""
    modes = ("none", "selective", "full")
    highest = 3 if execution.free_order_ranks is None else 1
    stages = range(execution.zero_stage, highest + 1) if execution.ranks > 1 else [execution.zero_stage]
    candidates: list[dict[str, object]] = [
        {"zero_stage": stage, "recompute": mode, "recompute_every": execution.recompute_every if mode == now else 1}
        for now in [execution.recompute]
        for mode in modes[modes.index(now) :]
        for stage in stages
    ]
    away = "host" if execution.gpus_per_rank else "file"
    full = {"recompute": "full", "recompute_every": 1, "offload_optimizer": away}
    candidates += [full | {"zero_stage": stage} for stage in stages]
    candidates += [full | {"offload_activations": away, "zero_stage": stage} for stage in stages]
    if highest == 3:
        candidates += [full | {"offload_activations": away, "offload_parameters": away, "zero_stage": 3}]
    for candidate in candidates:
        changed = {name: value for name, value in candidate.items() if getattr(execution, name) != value}
        if changed:
            yield changed


@cache
def groups_of(model: DecoderConfig) -> list[Group]:
    """The groups that a decoder's parameters will lie in."""
    shapes = parameter_shapes(model)
    blocks: list[list[str]] = [[] for _ in range(model.layers)]
    for name in shapes:
        if name.startswith("blocks."):
            blocks[int(name.split(".", 2)[1])].append(name)
    stem = [name for name in shapes if name.startswith(("word_embeddings", "position_embeddings"))]
    head = [name for name in shapes if name.startswith(("ln_f", "lm_head"))]
    head += ["word_embeddings.weight"] if model.tied_head else []
    return arrange(shapes, blocks, stem, head)
