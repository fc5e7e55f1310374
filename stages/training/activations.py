"""What a decoder's forward pass keeps for its backward pass, in bytes and without torch: for the memory planner.

Counted are the tensors that autograd saves, as the decoder's modules make them (`stages/model/`); of a block that is
computed again its input alone is kept, and in the selective mode what its matrix products gave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stages.model.config import DecoderConfig
from stages.training.recipe import Execution, Recipe

HEAD_ROWS = 128  # stages.training.head.ROWS, which can't be had without torch


@dataclass(frozen=True)
class Activations:
    """Bytes of one micro-batch. Blocks are in the order of the forward pass."""

    shared: int  # what all blocks use: the attention's bias, positions, embeddings
    kept: Sequence[int]  # of each block, from the forward pass to its backward pass
    again: Sequence[int]  # of each block beyond that when it is computed again; 0 where it is not
    working: Sequence[int]  # of each block: gradients on their way through it
    stream: int  # gradients on their way from block to block
    head: int  # at the head's own peak: its gradient in float32 and a few rows of logits
    head_gradient: int  # of its weight, in the precision of compute
    moved: int  # inputs of blocks that are computed again, where they are kept elsewhere

    @property
    def all_kept(self) -> int:
        return self.shared + sum(self.kept)


def activations(model: DecoderConfig, recipe: Recipe, execution: Execution) -> Activations:
    """What one micro-batch of `recipe` keeps on its way through `model`."""
    element = 4 if recipe.precision == "float32" else 2
    tokens = recipe.micro_batch_size * recipe.sequence_length
    whole = [tokens * _saved(model, layer, element) for layer in range(model.layers)]
    computed_again = [
        execution.recompute != "none" and layer % execution.recompute_every == 0 for layer in range(model.layers)
    ]
    stream = tokens * element * model.hidden_size
    inputs = 0 if execution.moved(execution.offload_activations) else stream
    of_again = [
        inputs + (tokens * element * _products(model, layer) if execution.recompute == "selective" else 0)
        for layer in range(model.layers)
    ]
    head_gradient = element * model.vocab_size * model.hidden_size
    # Logits of the rows at work and of those before; in bfloat16 also before they are widened.
    at_work, before = min(HEAD_ROWS, tokens), min(HEAD_ROWS, max(tokens - HEAD_ROWS, 0))
    logits = (4 * (at_work + before) + (2 * at_work if element == 2 else 0)) * model.vocab_size
    weight_gradient = 4 * model.vocab_size * model.hidden_size
    at_end = 2 * head_gradient if element == 4 else weight_gradient + head_gradient
    return Activations(
        shared=_shared(model, recipe, element),
        kept=[some if again else all_ for some, all_, again in zip(of_again, whole, computed_again, strict=True)],
        again=[all_ - some if again else 0 for some, all_, again in zip(of_again, whole, computed_again, strict=True)],
        working=[tokens * element * _passed_back(model, layer, element) for layer in range(model.layers)],
        stream=2 * stream,
        head=(2 if model.normalisation == "layer" else 8 // element) * stream + max(weight_gradient + logits, at_end),
        head_gradient=head_gradient,
        moved=(stream - inputs) * sum(computed_again),
    )


def _shared(model: DecoderConfig, recipe: Recipe, element: int) -> int:
    """The attention's bias, [samples, heads or 1, length, length], and what the embedding leaves."""
    batch, length, hidden = recipe.micro_batch_size, recipe.sequence_length, model.hidden_size
    bias = batch * (model.heads if model.position == "alibi" else 1) * length**2
    embedded = (1 + model.embedding_norm + (model.position == "learned")) * batch * length * hidden
    rotation = 2 * 2 * batch * length * model.head_size if model.position == "rotary" else 0
    return element * (bias + embedded + rotation) + 3 * 8 * batch * length


def _norm(model: DecoderConfig, element: int) -> int:
    """Elements per token that a normalisation saves beyond its input: its output; root mean squares are taken in parts
    that are saved as well, in float32."""
    if model.normalisation == "layer":
        return model.hidden_size
    return model.hidden_size * (2 if element == 4 else 4)


def _saved(model: DecoderConfig, layer: int, element: int) -> int:
    """Bytes per token that a whole block keeps."""
    hidden, attended, shared = model.hidden_size, model.heads * model.head_size, model.grouped_heads * model.head_size
    streams = 1 if model.parallel_blocks else 2  # inputs of norms
    attention = 2 * attended + 2 * shared  # the fused matrix's output, and the mixed values
    if model.position == "rotary":
        attention += 2 * (attended + shared)  # turned queries and keys, and what they are turned from
    elif model.heads != model.grouped_heads:
        attention += attended  # queries brought together
    elements = streams * (hidden + _norm(model, element)) + attention + _network(model, layer)
    statistics = 4 * (2 * streams + model.heads)
    return element * elements + statistics + _routing(model, layer)


def _network(model: DecoderConfig, layer: int) -> int:
    """Elements per token that a block's feed-forward part keeps: for each network that a token passes through, the
    input and the output of its activation (ReLU's tells its input), and if gated the gate's output and the product."""
    inside = {"relu": 1, "gelu_tanh": 2, "swiglu": 4}[model.feed_forward]
    if model.experts is None or not model.experts_of(layer):
        return inside * model.inner_size
    top_k, residual = model.experts.top_k, model.experts.residual
    # Tokens sorted by expert, and results brought back, weighed against each other and added.
    of_experts = top_k * (inside * model.expert_inner_size + 2 * model.hidden_size)
    return of_experts + residual * (inside * model.inner_size + 3 * model.hidden_size)


def _routing(model: DecoderConfig, layer: int) -> int:
    """Bytes per token that a mixture's gate keeps: it computes in float32, and places are int64."""
    if model.experts is None or not model.experts_of(layer):
        return 0
    widened = 4 * model.hidden_size
    return widened + 3 * 4 * model.experts_of(layer) + 6 * 8 * model.experts.top_k


def _products(model: DecoderConfig, layer: int) -> int:
    """Elements per token that a block's matrix products give."""
    hidden, attended, shared = model.hidden_size, model.heads * model.head_size, model.grouped_heads * model.head_size
    into = 2 if model.gated else 1
    networks = into * model.inner_size + hidden
    if model.experts is not None and model.experts_of(layer):
        of_experts = model.experts.top_k * (into * model.expert_inner_size + hidden)
        networks = of_experts + model.experts.residual * networks
    return attended + 2 * shared + hidden + networks


def _passed_back(model: DecoderConfig, layer: int, element: int) -> int:
    """Elements per token of gradients that are there at once in a block's backward pass: before anything of it is
    freed, the stream's and those on both sides of the activation."""
    inner = model.inner_size
    if model.experts is not None and model.experts_of(layer):
        inner = model.experts.top_k * model.expert_inner_size
    norm = 2 if model.normalisation == "layer" else 8 // element  # root mean squares are in float32
    return norm * model.hidden_size + (3 if model.gated else 2) * inner
