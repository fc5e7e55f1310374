"""The memory that training will need on each rank, known before anything starts. Free of torch: `plan` calls it.

There are two levels. `state_bytes` is the arithmetic of the ZeRO paper on a number of parameters (arXiv 1910.02054,
section 3 and Tables 1 and 2), with a named accounting. `predict` is specific to this library: padded flat groups,
partial sums of gradients, gathered blocks, activations and logits, for a given decoder and recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache

from stages.base import Demand, Resources
from stages.model.config import DecoderConfig
from stages.model.footprint import RUNTIME_BYTES
from stages.model.parameters import parameter_shapes
from stages.training.activation_memory import activations
from stages.training.layout import Group, arrange
from stages.training.memory_peak import Setting, collection, most_gradient_bytes, step_peak
from stages.training.recipe import Execution, Recipe, Training

KERNEL_BYTES = 1 << 20  # working memory of kernels, which pack their operands
GPU_RUNTIME_BYTES = 1 << 30  # an estimate of a GPU's memory before the first tensor: CUDA context, libraries, NCCL


@dataclass(frozen=True)
class Accounting:
    """Bytes per parameter of the three kinds of model state."""

    parameters: int
    gradients: int
    optimizer: int  # master weights and moments


PAPER = Accounting(2, 2, 12)  # half-precision parameters and gradients, float32 master weights and moments
FLOAT32 = Accounting(4, 4, 8)  # the parameters are the master weights
BFLOAT16 = Accounting(2, 4, 12)  # gradients summed in float32, as in BLOOM's training and in this library


def state_bytes(parameters: float, zero_stage: int, ranks: int, accounting: Accounting = PAPER) -> float:
    """Bytes of model states per rank: those that `zero_stage` (0 to 3) shards are divided by the number of ranks."""
    return parameters * _per_parameter(zero_stage, ranks, accounting)


def largest_model(memory_bytes: float, zero_stage: int, ranks: int, accounting: Accounting = PAPER) -> float:
    """Parameters of the largest model whose states fit into `memory_bytes` on each rank."""
    return memory_bytes / _per_parameter(zero_stage, ranks, accounting)


def _per_parameter(zero_stage: int, ranks: int, accounting: Accounting) -> float:
    sizes = (accounting.optimizer, accounting.gradients, accounting.parameters)
    return sum(size / ranks if stage <= zero_stage else size for stage, size in enumerate(sizes, start=1))


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one rank by part. The first four are exact, the others are upper bounds."""

    parameters: int
    gradients: int  # the most between micro-batches: partial sums on several levels of the summation tree
    master: int  # float32 weights, if training computes with other ones
    optimizer: int  # float32 moments
    transient: int  # the peak of a step beyond those: activations, gathered blocks, exchanges
    checkpoint: int  # copies that rank 0 writes while training continues
    host: int = 0  # what a rank that computes on a GPU offloads to host memory
    runtime: int = RUNTIME_BYTES

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def device(self) -> int:
        """The part of the total that is in the memory of the device that computes: a GPU, if the rank has one."""
        return self.total - self.checkpoint - self.host - self.runtime

    @property
    def parts(self) -> Mapping[str, int]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def demand(
    model: DecoderConfig | None,
    training: Training,
    task: Resources = Resources(cpus=0),
    frozen: frozenset[str] = frozenset(),
) -> Demand:
    """The resources of a step that trains `model`: `task` for its own process, and those of its ranks.

    `model` is None while it is unknown; no memory is then demanded. `frozen`: its parameters that are not trained.
    """
    smaller = range(training.minimum_ranks or training.ranks, training.ranks)
    return Demand(
        task=task,
        ranks=training.ranks,
        rank=_rank_resources(model, training, training.ranks, frozen),
        fallback_sizes={ranks: _rank_resources(model, training, ranks, frozen) for ranks in smaller},
    )


def _rank_resources(model: DecoderConfig | None, training: Training, ranks: int, frozen: frozenset[str]) -> Resources:
    """The resources of each rank when `ranks` of them train."""
    cpus, gpus = float(training.threads_per_rank), float(training.gpus_per_rank)
    if model is None:
        return Resources(cpus=cpus, gpus=gpus)
    plan = predict(model, training, training, ranks, frozen)
    if not gpus:
        return Resources(cpus=cpus, memory_bytes=plan.total)
    on_gpu = plan.device + GPU_RUNTIME_BYTES
    return Resources(cpus=cpus, gpus=gpus, memory_bytes=plan.total - plan.device, gpu_memory_bytes=on_gpu)


def predict(
    model: DecoderConfig,
    recipe: Recipe,
    execution: Execution,
    ranks: int | None = None,
    frozen: frozenset[str] = frozenset(),
) -> MemoryPlan:
    """The memory of the rank that needs the most to train `model`. `ranks` overrides that of `execution`; `frozen` has
    the parameters that are not trained, of which there are only the weights in the precision of compute.

    State that is offloaded to files counts with the part of it that is in memory at a time.
    """
    ranks, zero_stage = ranks or execution.ranks, execution.zero_stage
    groups = groups_of(model, frozen)
    element = 4 if recipe.precision == "float32" else 2
    sizes = [one.padded(ranks) for one in groups]
    padded, largest = sum(sizes), max(sizes)
    trained = [one.padded(ranks) for one in groups if not one.frozen]
    share = ranks if zero_stage else 1  # a rank owns 1 / share of the optimizer states
    parameters = element * padded // (ranks if zero_stage == 3 else 1)
    optimizer_offloaded, parameters_offloaded = map(
        execution.is_offloaded, (execution.offload_optimizer, execution.offload_parameters)
    )
    # The CPU updates what is in host memory; weights that are on the GPU are then copies of the master weights.
    separate_master = element != 4 or (execution.gpus_per_rank and optimizer_offloaded != parameters_offloaded)
    master, optimizer = 4 * sum(trained) // share if separate_master else 0, 8 * sum(trained) // share
    fixed_order = recipe.free_order_ranks is None
    settings = [
        Setting(
            groups, ranks, zero_stage, element, execution.bucket_bytes, size // recipe.micro_batch_size, fixed_order
        )
        for size in recipe.batch_sizes
    ]
    kept = activations(model, recipe, execution, frozen)
    gradients = max(most_gradient_bytes(setting) for setting in settings)
    # State in files is in memory one group at a time.
    window = (12 if separate_master else 8) * max(trained) // share if optimizer_offloaded else 0
    window += element * largest // ranks if parameters_offloaded else 0
    host = 0
    if execution.gpus_per_rank:
        # The CPU then works on that group, and on its gradient.
        host, window = window + (4 * max(trained) // share if optimizer_offloaded else 0), 0
        host += optimizer + master if execution.offload_optimizer == "host" else 0
        host += parameters if execution.offload_parameters == "host" else 0
        host += kept.offloaded if execution.offload_activations == "host" else 0
    peak = window + max(*(step_peak(setting, kept) for setting in settings), collection(settings[-1]))
    return MemoryPlan(
        parameters=0 if parameters_offloaded else parameters,
        gradients=gradients,
        master=0 if optimizer_offloaded else master,
        optimizer=0 if optimizer_offloaded else optimizer,
        transient=max(0, peak - gradients) + peak // 32 + KERNEL_BYTES,
        checkpoint=min(execution.checkpoint_buffer_bytes, 12 * sum(trained) + 4 * (padded - sum(trained))),
        host=host,
    )


def cheaper_settings(execution: Training) -> Iterator[dict[str, object]]:
    """Changes of `execution` with which training needs less memory, the mildest first: higher ZeRO stages, then
    recomputation, then offloading. Each has only the fields that change; none changes a bit of the result."""
    modes = ("none", "selective", "full")
    highest = 3 if execution.free_order_ranks is None else 1
    stages = range(execution.zero_stage, highest + 1) if execution.ranks > 1 else [execution.zero_stage]
    candidates: list[dict[str, object]] = [
        {"zero_stage": stage, "recompute": mode, "recompute_every": execution.recompute_every if mode == now else 1}
        for now in [execution.recompute]
        for mode in modes[modes.index(now) :]
        for stage in stages
    ]
    target = "host" if execution.gpus_per_rank else "file"
    full = {"recompute": "full", "recompute_every": 1, "offload_optimizer": target}
    candidates += [full | {"zero_stage": stage} for stage in stages]
    candidates += [full | {"offload_activations": target, "zero_stage": stage} for stage in stages]
    if highest == 3:
        candidates += [full | {"offload_activations": target, "offload_parameters": target, "zero_stage": 3}]
    for candidate in candidates:
        changed = {name: value for name, value in candidate.items() if getattr(execution, name) != value}
        if changed:
            yield changed


@cache
def groups_of(model: DecoderConfig, frozen: frozenset[str] = frozenset()) -> list[Group]:
    """The groups that a decoder's parameters will form if those in `frozen` are not trained."""
    shapes = parameter_shapes(model)
    blocks: list[list[str]] = [[] for _ in range(model.layers)]
    for name in shapes:
        if name.startswith("blocks."):
            blocks[int(name.split(".", 2)[1])].append(name)
    stem = [name for name in shapes if name.startswith(("word_embeddings", "position_embeddings"))]
    head = [name for name in shapes if name.startswith(("ln_f", "lm_head"))]
    head += ["word_embeddings.weight"] if model.tied_head else []
    return arrange(shapes, blocks, stem, head, frozen)
