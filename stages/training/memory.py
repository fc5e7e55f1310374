"""What training will need of each rank's memory, before anything starts. No torch: `plan` calls it.

Two levels. `state_bytes` is the ZeRO paper's own arithmetic on a number of parameters (arXiv 1910.02054, section 3 and
Tables 1 and 2), under a named accounting. `predict` is this library's: flat groups with their padding, the tree of
gradient sums, gathered blocks, activations and logits, for a given decoder and recipe.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from stages.model.config import DecoderConfig
from stages.model.shapes import tensor_shapes
from stages.training.layout import Group, arrange
from stages.training.recipe import Execution, Recipe
from stages.training.tree import leaf_range, piece_spans

HEAD_ROWS = 128  # stages.training.head.ROWS, which can't be had without torch
RUNTIME_BYTES = 430 << 20  # a process with torch and Ray in it, before the first tensor


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
    """Bytes of one rank by part. The first three persist; the others are bounds of what is there at a step's peak."""

    parameters: int
    gradients: int  # sums over micro-batches: one, or several levels of the tree
    optimizer: int
    gathered: int  # stage 3: the groups at work and those on their way
    communication: int  # the gradient of a group, as it is exchanged
    activations: int  # of one micro-batch, with what the head needs
    update: int  # what the update or the collection of a checkpoint, a group at a time, needs beyond those three
    checkpoint: int  # copies that rank 0 writes while training goes on
    runtime: int = RUNTIME_BYTES

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def parts(self) -> Mapping[str, int]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def predict(model: DecoderConfig, recipe: Recipe, execution: Execution, ranks: int | None = None) -> Needed:
    """Bytes that the rank with the most (the first) needs to train `model` by `recipe`; `ranks`: if other than asked.

    What is offloaded to files counts as the stretch of it that is in memory at a time.
    """
    ranks, zero_stage = ranks or execution.ranks, execution.zero_stage
    groups = groups_of(model)
    element = 4 if recipe.precision == "float32" else 2
    sizes = [one.padded(ranks) for one in groups]
    padded, largest = sum(sizes), max(sizes)
    share = ranks if zero_stage else 1  # what a rank owns is 1 / share
    parameters = element * padded // (ranks if zero_stage == 3 else 1)
    per_parameter = 8 if element == 4 else 12
    optimizer = per_parameter * padded // share
    held = max(gradient_sums(size // recipe.micro_batch_size, ranks, zero_stage) for size in recipe.batch_sizes)
    gathered = 0
    if zero_stage == 3:
        at = [sum(element * n for n, one in zip(sizes, groups, strict=True) if place in one.places)
              for place in range(model.layers + 2)]  # fmt: skip
        gathered = max(here + following for here, following in itertools.pairwise(at))
    if execution.offload_parameters == "file":
        gathered += element * largest // ranks
    buckets = 3 * min(execution.bucket_bytes, 4 * largest * held) if ranks > 1 else 0
    # As autograd leaves a parameter's gradient, and in the group's.
    communication = (4 + element) * largest + buckets
    if ranks > 1 and zero_stage > 1:
        communication += 4 * largest  # a gradient is on its way while the next group's comes
    activations = _activations(model, recipe, element, execution)
    # For the norm a group's gradient is squared and in twice the width; a state in a file is in memory for its update.
    window = sum(
        size * largest // padded
        for place, size in ((execution.offload_parameters, parameters), (execution.offload_optimizer, optimizer))
        if place == "file"
    )
    update = max(3 * 4 * largest // share, window, 12 * largest)
    return Needed(
        parameters=0 if execution.offload_parameters == "file" else parameters,
        gradients=4 * held * (padded // ranks if zero_stage > 1 else padded),
        optimizer=0 if execution.offload_optimizer == "file" else optimizer,
        gathered=gathered,
        communication=communication,
        activations=activations,
        update=max(0, update - gathered - communication - activations),
        checkpoint=min(execution.checkpoint_buffer_bytes, 12 * padded),
    )


def lighter(execution: Execution) -> Iterator[dict[str, object]]:
    """Fields of `execution` by which training needs less memory, mildest change first: higher stages, then computing
    activations again, then files. Each comes as what differs from `execution`; none changes a bit of the result."""
    modes = ("none", "selective", "full")
    stages = range(execution.zero_stage, 4) if execution.ranks > 1 else [execution.zero_stage]
    candidates: list[dict[str, object]] = [
        {"zero_stage": stage, "recompute": mode, "recompute_every": execution.recompute_every if mode == now else 1}
        for now in [execution.recompute]
        for mode in modes[modes.index(now) :]
        for stage in stages
    ]
    full = {"recompute": "full", "recompute_every": 1, "offload_optimizer": "file"}
    candidates += [full | {"zero_stage": stage} for stage in stages]
    candidates += [full | {"offload_activations": "file", "zero_stage": stage} for stage in stages]
    candidates += [full | {"offload_activations": "file", "offload_parameters": "file", "zero_stage": 3}]
    for candidate in candidates:
        changed = {name: value for name, value in candidate.items() if getattr(execution, name) != value}
        if changed:
            yield changed


def gradient_sums(leaves: int, ranks: int, zero_stage: int) -> int:
    """How many partial sums the tree holds at most on a rank: 1 + log2 of the micro-batches it sums, less one.

    No order of a balanced tree needs fewer; stages 2 and 3 hold them for a shard only.
    """
    if zero_stage < 2:
        runs = [leaf_range(rank, ranks, leaves) for rank in range(ranks)]
        return max(len(piece_spans(run[:count])) for run in runs for count in range(1, len(run) + 1))
    turns = [min(count, leaves) for count in range(ranks, leaves + ranks, ranks)]
    return max(len(piece_spans(range(count))) for count in turns)


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


def _activations(model: DecoderConfig, recipe: Recipe, element: int, execution: Execution) -> int:
    """What one micro-batch's forward pass keeps for its backward pass, with what the head needs.

    Per token and block: two norms' inputs and outputs, queries, keys, values, the attention's output before and after
    its matrix, and for each network that a token passes through the input and output of its activation, and if gated
    the gate's output and the product. Of a block that is computed again its input is kept, and in the selective mode
    what its matrices gave; one such block is whole at a time.
    """
    tokens = recipe.micro_batch_size * recipe.sequence_length
    networks = model.experts.top_k + model.experts.residual if model.experts else 1
    hidden, attended, shared = model.hidden_size, model.heads * model.head_size, model.grouped_heads * model.head_size
    products = 2 * hidden + attended + 2 * shared + networks * model.inner_size * (2 if model.gated else 1)
    block = 5 * hidden + 2 * attended + 2 * shared + (4 if model.gated else 2) * networks * model.inner_size
    recomputed = -(-model.layers // execution.recompute_every) if execution.recompute != "none" else 0
    # Two more: gradients on their way back, and a block that is computed again.
    kept = (model.layers - recomputed + 1 + min(recomputed, 1)) * block
    kept += recomputed * products if execution.recompute == "selective" else 0
    kept += min(recomputed, 1 if execution.offload_activations == "file" else recomputed) * hidden
    attention_bias = 2 * recipe.micro_batch_size * model.heads * recipe.sequence_length**2
    chunk = 3 * 4 * HEAD_ROWS * model.vocab_size
    # The head's gradient: summed in float32, then with the loss's own factor; a tied embedding's comes on top.
    head = (8 if element == 4 else 6) * model.vocab_size * hidden
    return element * (tokens * kept + attention_bias) + chunk + head
