"""The config of a decoder as plain values: sizes, architecture, special tokens, experts, quantization.

One `DecoderConfig` describes dense and mixture-of-experts models, in floating point and quantized. It is a field of
stages, the `config.json` of a checkpoint and the argument of `Decoder`. The module does not import torch.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from stages.base import Config, StageError

QuantizationName = Literal["int8"]  # the schemes of `quantization_schemes.py`


class ExpertsConfig(Config):
    """Mixture-of-experts feed-forward layers: the number of experts in each layer and how tokens choose among them."""

    per_layer: tuple[NonNegativeInt, ...] = Field(min_length=1)  # experts of each layer, bottom first; 0: dense layer
    top_k: PositiveInt = 1  # experts that each token passes through; their gate values are renormalised to sum to 1
    feed_forward_size: PositiveInt | None = None  # inner size of one expert; null: that of a dense layer
    residual: bool = False  # PR-MoE (arXiv 2201.05596): a dense network next to the experts, mixed by a learned gate

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if not any(self.per_layer):
            raise ValueError("experts.per_layer has no layer with experts; leave `experts` out for a dense model")
        fewest = min(count for count in self.per_layer if count)
        if self.top_k > fewest:
            raise ValueError(f"experts.top_k is {self.top_k}, but a layer has only {fewest} experts")
        return self


class RotaryScaling(Config):
    """Rotary frequencies slowed down, for contexts longer than those that a model was first trained on.

    `linear` divides all frequencies by `factor` (position interpolation, arXiv 2306.15595). `llama3` divides the slow
    ones only, with a smooth transition (Llama 3.1): a frequency is slow if it makes fewer than `low_frequency_factor`
    turns within the original context, and is unchanged if it makes more than `high_frequency_factor` turns.
    """

    kind: Literal["linear", "llama3"]
    factor: float = Field(ge=1, allow_inf_nan=False)
    low_frequency_factor: PositiveFloat = 1.0  # llama3 only
    high_frequency_factor: PositiveFloat = 4.0  # llama3 only
    original_context_length: PositiveInt = 8192  # llama3 only

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.low_frequency_factor >= self.high_frequency_factor:
            raise ValueError("rotary_scaling.low_frequency_factor must be below high_frequency_factor")
        return self


class DecoderConfig(Config):
    """A decoder of pre-norm blocks. The defaults are those of BLOOM (arXiv 2211.05100): ALiBi, embedding LayerNorm,
    GELU.

    OPT (arXiv 2205.01068), Llama (arXiv 2307.09288) and PaLM (arXiv 2204.02311) are other values of the same fields.
    """

    vocab_size: PositiveInt  # rows of the embedding; may be larger than the tokenizer's vocabulary (padding)
    hidden_size: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    key_value_heads: PositiveInt | None = None  # each is shared by heads / key_value_heads queries; null: `heads`
    attention_head_size: PositiveInt | None = None  # null: hidden_size / heads
    feed_forward_size: PositiveInt | None = None  # inner size of a feed-forward network; null: 4 x hidden_size
    feed_forward: Literal["gelu_tanh", "relu", "swiglu"] = "gelu_tanh"  # swiglu has a third matrix, the gate
    position: Literal["alibi", "learned", "rotary"] = "alibi"
    position_offset: NonNegativeInt = 0  # rows of learned positions before that of the first position; OPT has 2
    rotary_base: float = Field(default=10_000.0, gt=1, allow_inf_nan=False)  # "theta"
    rotary_scaling: RotaryScaling | None = None
    normalisation: Literal["layer", "rms"] = "layer"
    layer_norm_epsilon: PositiveFloat = 1e-5  # of either normalisation
    embedding_norm: bool = True  # normalise the embeddings before the first block
    parallel_blocks: bool = False  # attention and feed-forward read the same normalised input (PaLM)
    biases: bool = True  # of linear maps and layer norms; a head that is not tied never has one
    tied_head: bool = True  # the head is the embedding
    logit_scale: PositiveFloat = 1.0  # logits are multiplied by it; PaLM has 1/sqrt(hidden_size)
    context_length: PositiveInt = 2048  # largest number of tokens in a sequence
    # Standard deviation of the initial weights. The 0.0048 of BLOOM is 1/sqrt(3 h) at its largest width, h = 14336; at
    # h = 256 the same rule gives 0.036.
    initial_deviation: PositiveFloat = 0.0048
    embedding_deviation: PositiveFloat | None = None  # of the token embedding; null: `initial_deviation`
    bos_token_id: NonNegativeInt = 1
    eos_token_id: NonNegativeInt = 2  # ends a document of the training data, and a generated text
    other_end_token_ids: tuple[NonNegativeInt, ...] = ()  # end a generated text too: the end of a turn of a chat model
    pad_token_id: NonNegativeInt = 3
    experts: ExpertsConfig | None = None
    quantization: QuantizationName | None = None  # how matrices are stored; null: in floating point

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.attention_head_size is None and self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        if self.heads % self.grouped_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of key_value_heads {self.key_value_heads}")
        if self.position == "rotary" and self.head_size % 2:
            raise ValueError(f"position: rotary needs an even head size, but a head has {self.head_size} numbers")
        for kind, names in {"learned": ["position_offset"], "rotary": ["rotary_base", "rotary_scaling"]}.items():
            for name in names:
                if self.position != kind and getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} needs position: {kind}, but position is {self.position}")
        if self.experts is not None and len(self.experts.per_layer) != self.layers:
            raise ValueError(
                f"experts.per_layer lists {len(self.experts.per_layer)} layers, but the model has {self.layers}"
            )
        return self

    @property
    def head_size(self) -> int:
        """Numbers in one attention head."""
        return self.attention_head_size or self.hidden_size // self.heads

    @property
    def grouped_heads(self) -> int:
        """The number of heads of keys and values."""
        return self.key_value_heads or self.heads

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """All tokens that end a generated text; the first one also ends a document of the training data."""
        return tuple(dict.fromkeys((self.eos_token_id, *self.other_end_token_ids)))

    @property
    def gated(self) -> bool:
        """Whether feed-forward networks have a gate, which is a third matrix."""
        return self.feed_forward == "swiglu"

    @property
    def inner_size(self) -> int:
        """The inner size of a dense feed-forward network: numbers between its two matrices."""
        return self.feed_forward_size or 4 * self.hidden_size

    @property
    def expert_inner_size(self) -> int:
        """The inner size of one expert."""
        return (self.experts.feed_forward_size if self.experts else None) or self.inner_size

    def experts_of(self, layer: int) -> int:
        """The number of experts in a layer (from 0, bottom first); 0 for a dense one."""
        return self.experts.per_layer[layer] if self.experts else 0


def expert_config(
    dense: DecoderConfig, copies: tuple[int, ...], top_k: int, granularity: int, residual: bool
) -> DecoderConfig:
    """The config of `dense` converted to a mixture of experts.

    copies: [layers], the number of copies of each feed-forward network; 0 leaves the layer dense.
    top_k: copies that a token passes through.
    granularity: experts that each copy is cut into.

    Raises StageError if `dense` is not a dense model in floating point or cannot be cut so.
    """
    if dense.experts is not None or dense.quantization is not None:
        raise StageError("only a dense model in floating point can be converted to experts")
    if dense.inner_size % granularity:
        raise StageError(f"granularity {granularity} does not divide the inner size of a layer, {dense.inner_size}")
    fewest = min(count for count in copies if count)
    if top_k > fewest:
        raise StageError(f"top_k is {top_k}, but a layer has only {fewest} experts")
    experts = ExpertsConfig(
        per_layer=tuple(count * granularity for count in copies),
        top_k=top_k * granularity,
        feed_forward_size=dense.inner_size // granularity if granularity > 1 else None,
        residual=residual,
    )
    return DecoderConfig.model_validate(dense.model_dump() | {"experts": experts})
