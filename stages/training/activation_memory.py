"""The bytes that a decoder's forward pass keeps for its backward pass. For the memory planner; free of torch.

The tensors counted are those that autograd saves in the decoder's modules (`stages/model/`). Of a recomputed block only
the input is kept, and in selective mode also the results of its matrix products.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from stages.model.config import DecoderConfig
from stages.model.parameters import parameter_shapes
from stages.training.recipe import Execution, Recipe

HEAD_ROWS = 128  # equals stages.model.head_loss.ROWS, whose module imports torch


@dataclass(frozen=True)
class Activations:
    """Bytes of one micro-batch. Sequences have one entry for each block, in the order of the forward pass."""

    shared: int  # used by all blocks: the attention's bias, positions, embeddings
    kept: Sequence[int]  # from the block's forward pass to its backward pass
    recomputed: Sequence[int]  # in addition, while a recomputed block is in its backward pass; 0 for other blocks
    working: Sequence[int]  # gradients inside the block during its backward pass
    stream: int  # gradients between blocks
    head: int  # at the peak of the head: its gradient in float32 and a few rows of logits
    head_gradient: int  # the gradient of the head's weight, in the precision of compute; 0 if it is frozen
    embedding_gradient: int  # the same for the token embedding
    offloaded: int  # inputs of recomputed blocks that are kept elsewhere

    @property
    def all_kept(self) -> int:
        return self.shared + sum(self.kept)


def activations(
    model: DecoderConfig, recipe: Recipe, execution: Execution, frozen: Collection[str] = ()
) -> Activations:
    """The activations of one micro-batch of `recipe` in `model`, whose `frozen` parameters are not trained.

    Blocks below the first trained parameter keep nothing. Others count as if all of their parameters were trained.
    """
    kept_from = _first_trained_block(model, frozen)
    element = 4 if recipe.precision == "float32" else 2
    tokens = recipe.micro_batch_size * recipe.sequence_length
    whole = [tokens * _saved(model, layer, element) for layer in range(model.layers)]
    is_recomputed = [
        execution.recompute != "none" and layer % execution.recompute_every == 0 for layer in range(model.layers)
    ]
    stream = tokens * element * model.hidden_size
    inputs = 0 if execution.is_offloaded(execution.offload_activations) else stream
    reduced = [
        inputs + (tokens * element * _products(model, layer) if execution.recompute == "selective" else 0)
        for layer in range(model.layers)
    ]
    head_gradient = element * model.vocab_size * model.hidden_size
    head_name = "word_embeddings.weight" if model.tied_head else "lm_head.weight"
    head_trained, embedding_trained = (name not in frozen for name in (head_name, "word_embeddings.weight"))
    # Logits of the current rows and of the rows before; with bfloat16 also before conversion to float32.
    current, previous = min(HEAD_ROWS, tokens), min(HEAD_ROWS, max(tokens - HEAD_ROWS, 0))
    logits = (4 * (current + previous) + (2 * current if element == 2 else 0)) * model.vocab_size
    weight_gradient = 4 * model.vocab_size * model.hidden_size
    at_end = 2 * head_gradient if element == 4 else weight_gradient + head_gradient
    if not head_trained:
        weight_gradient = at_end = 0
    blocks = [
        (few, everything, recomputed) if layer >= kept_from else (0, 0, False)
        for layer, (few, everything, recomputed) in enumerate(zip(reduced, whole, is_recomputed, strict=True))
    ]
    return Activations(
        shared=_shared(model, recipe, element),
        kept=[few if recomputed else everything for few, everything, recomputed in blocks],
        recomputed=[everything - few if recomputed else 0 for few, everything, recomputed in blocks],
        working=[tokens * element * _block_gradients(model, layer, element) for layer in range(model.layers)],
        stream=2 * stream,
        head=(2 if model.normalisation == "layer" else 8 // element) * stream + max(weight_gradient + logits, at_end),
        head_gradient=head_gradient * head_trained,
        embedding_gradient=head_gradient * embedding_trained,
        offloaded=(stream - inputs) * sum(recomputed for *_, recomputed in blocks),
    )


def _first_trained_block(model: DecoderConfig, frozen: Collection[str]) -> int:
    """The first block whose activations a backward pass needs: its parameters, or some before it, are trained."""
    for name in parameter_shapes(model):  # in the order of the forward pass, but for the head
        if name in frozen:
            continue
        if name.startswith(("word_embeddings", "position_embeddings")):
            return 0
        if name.startswith("blocks."):
            return int(name.split(".", 2)[1])
    return model.layers


def _shared(model: DecoderConfig, recipe: Recipe, element: int) -> int:
    """Bytes of the attention's bias, [samples, heads or 1, length, length], and of what the embedding saves."""
    batch, length, hidden = recipe.micro_batch_size, recipe.sequence_length, model.hidden_size
    bias = batch * (model.heads if model.position == "alibi" else 1) * length**2
    embedded = (1 + model.embedding_norm + (model.position == "learned")) * batch * length * hidden
    rotation = 2 * 2 * batch * length * model.head_size if model.position == "rotary" else 0
    return element * (bias + embedded + rotation) + 3 * 8 * batch * length


def _norm(model: DecoderConfig, element: int) -> int:
    """Elements per token that a normalisation saves in addition to its input: its output; for root mean square
    normalisation also intermediate results in float32."""
    if model.normalisation == "layer":
        return model.hidden_size
    return model.hidden_size * (2 if element == 4 else 4)


def _saved(model: DecoderConfig, layer: int, element: int) -> int:
    """Bytes per token that a block saves without recomputation."""
    hidden, attended, shared = model.hidden_size, model.heads * model.head_size, model.grouped_heads * model.head_size
    streams = 1 if model.parallel_blocks else 2  # inputs of norms
    attention = 2 * attended + 2 * shared  # the output of the fused projection, and the attended values
    if model.position == "rotary":
        attention += 2 * (attended + shared)  # queries and keys before and after the rotation
    elif model.heads != model.grouped_heads:
        attention += attended  # contiguous queries
    elements = streams * (hidden + _norm(model, element)) + attention + _network(model, layer)
    statistics = 4 * (2 * streams + model.heads)
    return element * elements + statistics + _routing(model, layer)


def _network(model: DecoderConfig, layer: int) -> int:
    """Elements per token that a block's feed-forward part saves: for each network that a token passes through, the
    input and output of its activation (of ReLU the output alone), and for a gated one the gate's output and the
    product."""
    inside = {"relu": 1, "gelu_tanh": 2, "swiglu": 4}[model.feed_forward]
    if model.experts is None or not model.experts_of(layer):
        return inside * model.inner_size
    top_k, residual = model.experts.top_k, model.experts.residual
    # Tokens sorted by expert, and their results in the original order, weighted and added.
    of_experts = top_k * (inside * model.expert_inner_size + 2 * model.hidden_size)
    return of_experts + residual * (inside * model.inner_size + 3 * model.hidden_size)


def _routing(model: DecoderConfig, layer: int) -> int:
    """Bytes per token that the gate of a mixture of experts saves: it computes in float32, with int64 positions."""
    if model.experts is None or not model.experts_of(layer):
        return 0
    widened = 4 * model.hidden_size
    return widened + 3 * 4 * model.experts_of(layer) + 6 * 8 * model.experts.top_k


def _products(model: DecoderConfig, layer: int) -> int:
    """Elements per token in the results of a block's matrix products with weights."""
    hidden, attended, shared = model.hidden_size, model.heads * model.head_size, model.grouped_heads * model.head_size
    into = 2 if model.gated else 1
    networks = into * model.inner_size + hidden
    if model.experts is not None and model.experts_of(layer):
        of_experts = model.experts.top_k * (into * model.expert_inner_size + hidden)
        networks = of_experts + model.experts.residual * networks
    return attended + 2 * shared + hidden + networks


def _block_gradients(model: DecoderConfig, layer: int, element: int) -> int:
    """Elements per token of the gradients that exist at once in a block's backward pass before anything of the block is
    freed: those of the residual stream, and those on both sides of the activation."""
    inner = model.inner_size
    if model.experts is not None and model.experts_of(layer):
        inner = model.experts.top_k * model.expert_inner_size
    norm = 2 if model.normalisation == "layer" else 8 // element  # root mean squares are in float32
    return norm * model.hidden_size + (3 if model.gated else 2) * inner
