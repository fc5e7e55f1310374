"""What a decoder is, as plain values: shapes, special tokens, experts, quantization.

One `DecoderConfig` describes dense and mixture-of-experts models, full and quantized. It is a stage's field, an
artifact's `config.json` and the argument of `Decoder`. Imports no torch, so plans can count parameters and bytes.
"""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from stages.base import Config, StageError
from stages.model.shapes import active_elements, tensor_shapes


class ExpertsConfig(Config):
    """Mixture-of-experts feed-forward layers: how many experts each layer has, and how tokens choose among them."""

    per_layer: tuple[NonNegativeInt, ...] = Field(min_length=1)  # experts of each layer, bottom first; 0: dense layer
    top_k: PositiveInt = 1  # experts that each token passes through; their gate values are renormalised to sum to 1
    feed_forward_size: PositiveInt | None = None  # neurons of one expert; null: as many as a dense layer's
    residual: bool = False  # PR-MoE (arXiv 2201.05596): a dense network beside the experts, mixed by a learned gate

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if not any(self.per_layer):
            raise ValueError("experts.per_layer has no layer with experts; leave `experts` out for a dense model")
        fewest = min(count for count in self.per_layer if count)
        if self.top_k > fewest:
            raise ValueError(f"experts.top_k is {self.top_k}, but a layer has only {fewest} experts")
        return self


class RotaryScaling(Config):
    """Rotary frequencies slowed down, for contexts longer than those a model was first trained on."""

    kind: Literal["linear", "llama3"]  # all by `factor`; or Llama 3.1's: the slow ones, with a smooth transition
    factor: float = Field(ge=1, allow_inf_nan=False)
    # Of llama3 alone: a frequency is slow if it turns less often than this within the original context, and left alone
    # if it turns more often than that.
    low_frequency_factor: PositiveFloat = 1.0
    high_frequency_factor: PositiveFloat = 4.0
    original_context_length: PositiveInt = 8192

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.low_frequency_factor >= self.high_frequency_factor:
            raise ValueError("rotary_scaling.low_frequency_factor must be below high_frequency_factor")
        return self


class DecoderConfig(Config):
    """A decoder of pre-norm blocks. The defaults are BLOOM's (arXiv 2211.05100): ALiBi, embedding LayerNorm, GELU.

    OPT's shape (arXiv 2205.01068), Llama's (2307.09288) and PaLM's (2204.02311) are other values of the same fields.
    """

    vocab_size: PositiveInt  # rows of the embedding; may be larger than the tokenizer's vocabulary (padding)
    hidden_size: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    key_value_heads: PositiveInt | None = None  # each shared by as many query heads; 1: multi-query; null: `heads`
    attention_head_size: PositiveInt | None = None  # numbers of one head; null: hidden_size / heads
    feed_forward_size: PositiveInt | None = None  # neurons between a layer's two matrices; null: 4 x hidden_size
    feed_forward: Literal["gelu_tanh", "relu", "swiglu"] = "gelu_tanh"  # swiglu has a third matrix, the gate's
    position: Literal["alibi", "learned", "rotary"] = "alibi"
    position_offset: NonNegativeInt = 0  # rows of learned positions before the first position's; OPT has 2
    rotary_base: float = Field(default=10_000.0, gt=1, allow_inf_nan=False)  # "theta"
    rotary_scaling: RotaryScaling | None = None
    normalisation: Literal["layer", "rms"] = "layer"
    layer_norm_epsilon: PositiveFloat = 1e-5  # of either normalisation
    embedding_norm: bool = True  # normalise the embeddings before the first block
    parallel_blocks: bool = False  # attention and feed-forward read the same input, under one norm (PaLM)
    biases: bool = True  # of linear maps and of layer norms; a head of its own never has one
    tied_head: bool = True  # the head is the embedding
    logit_scale: PositiveFloat = 1.0  # logits are multiplied by it; PaLM's is 1/sqrt(hidden_size)
    context_length: PositiveInt = 2048  # tokens that a sequence may have
    # Standard deviation of the initial weights. BLOOM's 0.0048 is 1/sqrt(3 h) at its largest width, h = 14336; at
    # h = 256 the same rule gives 0.036.
    initial_deviation: PositiveFloat = 0.0048
    embedding_deviation: PositiveFloat | None = None  # of the token embedding; null: `initial_deviation`
    bos_token_id: NonNegativeInt = 1
    eos_token_id: NonNegativeInt = 2
    pad_token_id: NonNegativeInt = 3
    experts: ExpertsConfig | None = None
    quantization: Literal["int8"] | None = None  # how the matrices are stored; null: in floating point

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.attention_head_size is None and self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        if self.heads % self.grouped_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of key_value_heads {self.key_value_heads}")
        if self.position == "rotary" and self.head_size % 2:
            raise ValueError(f"position: rotary turns pairs of numbers, but a head has {self.head_size}")
        for kind, names in {"learned": ["position_offset"], "rotary": ["rotary_base", "rotary_scaling"]}.items():
            for name in names:
                if self.position != kind and getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} means something with position: {kind} only, not with {self.position}")
        if self.experts is not None and len(self.experts.per_layer) != self.layers:
            raise ValueError(
                f"experts.per_layer names {len(self.experts.per_layer)} layers, the model has {self.layers}"
            )
        return self

    @property
    def head_size(self) -> int:
        return self.attention_head_size or self.hidden_size // self.heads

    @property
    def grouped_heads(self) -> int:
        """How many heads keys and values have."""
        return self.key_value_heads or self.heads

    @property
    def gated(self) -> bool:
        """Whether feed-forward networks have a gate: a third matrix."""
        return self.feed_forward == "swiglu"

    @property
    def inner_size(self) -> int:
        """Neurons between the two matrices of a feed-forward network."""
        return self.feed_forward_size or 4 * self.hidden_size

    @property
    def expert_inner_size(self) -> int:
        """Neurons between the two matrices of one expert."""
        return (self.experts.feed_forward_size if self.experts else None) or self.inner_size

    def experts_of(self, layer: int) -> int:
        """How many experts a layer has; 0 for a dense one."""
        return self.experts.per_layer[layer] if self.experts else 0

    @property
    def parameters(self) -> int:
        """How many parameters the model has; a tied head counts once."""
        return sum(math.prod(shape) for shape in tensor_shapes(self).values())

    @property
    def active_parameters(self) -> int:
        """How many parameters one token passes through: `top_k` experts of each layer instead of all."""
        return sum(active_elements(self, name, shape) for name, shape in tensor_shapes(self).items())

    @property
    def multiplied_parameters(self) -> int:
        """The active parameters of matrices that a token is multiplied by, the head's included: what operations are
        counted by. Not those of embeddings that are only looked up, norms and biases."""
        looked_up = {"position_embeddings.weight"} | (set() if self.tied_head else {"word_embeddings.weight"})
        matrices = [
            (name, shape)
            for name, shape in tensor_shapes(self).items()
            if name.endswith("weight") and len(shape) > 1 and name not in looked_up
        ]
        return sum(active_elements(self, name, shape) for name, shape in matrices)


def expert_config(
    dense: DecoderConfig, copies: tuple[int, ...], top_k: int, granularity: int, residual: bool
) -> DecoderConfig:
    """The config of `dense` converted to experts: `copies` [layers] of each feed-forward network (0: stays dense), of
    which a token passes through `top_k`, each cut into `granularity` experts.

    Raises StageError if `dense` is not dense or cannot be cut so.
    """
    if dense.experts is not None or dense.quantization is not None:
        raise StageError("only a dense model in floating point can be converted to experts")
    if dense.inner_size % granularity:
        raise StageError(f"granularity {granularity} does not divide the {dense.inner_size} neurons of a layer")
    if top_k > min(count for count in copies if count):
        raise StageError(f"top_k is {top_k}, but a layer has only {min(c for c in copies if c)} experts")
    experts = ExpertsConfig(
        per_layer=tuple(count * granularity for count in copies),
        top_k=top_k * granularity,
        feed_forward_size=dense.inner_size // granularity if granularity > 1 else None,
        residual=residual,
    )
    return DecoderConfig.model_validate(dense.model_dump() | {"experts": experts})
