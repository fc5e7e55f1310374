"""What training will need of each rank's memory, before anything starts. No torch: `plan` calls it.

Two levels. `state_bytes` is the ZeRO paper's own arithmetic on a number of parameters (arXiv 1910.02054, section 3 and
Tables 1 and 2), under a named accounting. `predict` is this library's: flat groups with their padding, the tree of
gradient sums, gathered blocks, activations and logits, for a given decoder and recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from stages.model.config import DecoderConfig
from stages.model.shapes import tensor_shapes
from stages.training.layout import Group, group
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
    """Bytes of one rank by part. The first three persist; the rest is there at the peak of a step."""

    parameters: int
    gradients: int  # sums over micro-batches: one, or several levels of the tree
    optimizer: int
    communication: int  # gathered blocks (stage 3), the gradient of a block and its exchange
    activations: int  # of one micro-batch, with what the head needs
    runtime: int = RUNTIME_BYTES

    @cached_property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def parts(self) -> Mapping[str, int]:
        names = ("parameters", "gradients", "optimizer", "communication", "activations", "runtime")
        return {name: getattr(self, name) for name in names}


def predict(model: DecoderConfig, recipe: Recipe, execution: Execution) -> Needed:
    """Bytes that the rank with the most needs to train `model` by `recipe`."""
    ranks, zero_stage = execution.ranks, execution.zero_stage
    groups = groups_of(model)
    element = 4 if recipe.precision == "float32" else 2
    padded = sum(one.padded(ranks) for one in groups)
    shard = padded // ranks
    largest = max(one.padded(ranks) for one in groups)
    owned = shard if zero_stage else padded
    held = gradient_sums(recipe.micro_batches, ranks, zero_stage)
    # A block's gradient as autograd leaves it and in its buffer; with several ranks also what is sent and received.
    communication = 2 * 4 * largest if ranks == 1 else 4 * 4 * largest
    if zero_stage == 3:
        communication += element * (groups[0].padded(ranks) + 2 * max(one.padded(ranks) for one in groups[1:]))
    return Needed(
        parameters=element * (shard if zero_stage == 3 else padded),
        gradients=4 * held * (padded if zero_stage < 2 else shard),
        optimizer=(8 if element == 4 else 12) * owned,
        communication=communication,
        activations=_activations(model, recipe, element, execution.recompute_every),
    )


def gradient_sums(leaves: int, ranks: int, zero_stage: int) -> int:
    """How many partial sums the tree holds at most on a rank: 1 + log2 of the micro-batches it sums, less one."""
    if zero_stage < 2:
        runs = [leaf_range(rank, ranks, leaves) for rank in range(ranks)]
        return max(len(piece_spans(run[:count])) for run in runs for count in range(1, len(run) + 1))
    turns = [min(count, leaves) for count in range(ranks, leaves + ranks, ranks)]
    return max(len(piece_spans(range(count))) for count in turns)


def groups_of(model: DecoderConfig) -> list[Group]:
    """The groups that a decoder's parameters will lie in, by size: what lies outside the blocks, then each block."""
    groups: dict[str, dict[str, tuple[int, ...]]] = {"rest": {}}
    for name, shape in tensor_shapes(model).items():
        fields = name.split(".", 2)
        title = f"block-{int(fields[1]):03d}" if fields[0] == "blocks" else "rest"
        groups.setdefault(title, {})[name] = shape
    return [group(title, shapes) for title, shapes in groups.items()]


def _activations(model: DecoderConfig, recipe: Recipe, element: int, recompute_every: int) -> int:
    """What one micro-batch's forward pass keeps for its backward pass, with what the head needs.

    Per token and block: two norms' inputs and outputs, queries, keys, values, the attention's output before and after
    its matrix, and for each network that a token passes through the input and output of its activation, and if gated
    the gate's output and the product. Of a block that is computed again only its input is kept, and one such block is
    whole at a time.
    """
    tokens = recipe.micro_batch_size * recipe.sequence_length
    networks = model.experts.top_k + model.experts.residual if model.experts else 1
    attended, shared = model.heads * model.head_size, model.grouped_heads * model.head_size
    attention = 5 * model.hidden_size + 2 * attended + 2 * shared
    block = tokens * element * (attention + (4 if model.gated else 2) * networks * model.inner_size)
    recomputed = -(-model.layers // recompute_every) if recompute_every else 0
    blocks = (model.layers - recomputed + min(recomputed, 1) + 1) * block  # one more: gradients on their way back
    inputs = recomputed * tokens * element * model.hidden_size
    attention_bias = recipe.micro_batch_size * model.heads * recipe.sequence_length**2 * element
    head = (
        4 * model.vocab_size * (3 * HEAD_ROWS + 2 * model.hidden_size)
    )  # a chunk of logits; the head's gradient, twice
    return blocks + inputs + 2 * attention_bias + head
