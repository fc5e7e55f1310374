"""What a decoder is, as plain values: shapes, special tokens, experts, quantization.

One `DecoderConfig` describes dense and mixture-of-experts models, full and quantized. It is a stage's field, an
artifact's `config.json` and the argument of `Decoder`. Imports no torch, so plans can count parameters and bytes.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from stages.base import Config


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


class DecoderConfig(Config):
    """BLOOM's decoder (arXiv 2211.05100): pre-LayerNorm blocks, ALiBi, embedding LayerNorm, tied head."""

    vocab_size: PositiveInt  # rows of the embedding; may be larger than the tokenizer's vocabulary (padding)
    hidden_size: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    feed_forward_size: PositiveInt | None = None  # neurons between a layer's two matrices; null: 4 x hidden_size
    context_length: PositiveInt = 2048  # tokens that a sequence may have
    layer_norm_epsilon: PositiveFloat = 1e-5
    # Standard deviation of the initial weights. BLOOM's 0.0048 is 1/sqrt(3 h) at its largest width, h = 14336; at
    # h = 256 the same rule gives 0.036.
    initial_deviation: PositiveFloat = 0.0048
    bos_token_id: NonNegativeInt = 1
    eos_token_id: NonNegativeInt = 2
    pad_token_id: NonNegativeInt = 3
    experts: ExpertsConfig | None = None
    quantization: Literal["int8"] | None = None  # how the matrices are stored; null: in floating point

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        if self.experts is not None and len(self.experts.per_layer) != self.layers:
            raise ValueError(
                f"experts.per_layer names {len(self.experts.per_layer)} layers, the model has {self.layers}"
            )
        return self

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.heads

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
        """How many parameters the model has, in closed form; the tied head counts once.

        Dense: V h + 2h + L (12 h^2 + 13 h) + 2h, where feed_forward_size is 4h. A layer of E experts adds (E - 1)
        feed-forward networks and E h for its gate, and with `residual` one more network and 2h + 2.
        """
        return self._count(active=False)

    @property
    def active_parameters(self) -> int:
        """How many parameters one token passes through: `top_k` experts of each layer instead of all."""
        return self._count(active=True)

    def _count(self, active: bool) -> int:
        def network(inner: int) -> int:
            return 2 * h * inner + inner + h

        h = self.hidden_size
        attention = 4 * h * h + 4 * h
        total = self.vocab_size * h + 2 * h + 2 * h
        for layer in range(self.layers):
            total += attention + 2 * 2 * h
            experts = self.experts_of(layer)
            if self.experts is None or not experts:
                total += network(self.inner_size)
                continue
            total += (self.experts.top_k if active else experts) * network(self.expert_inner_size) + experts * h
            total += network(self.inner_size) + 2 * h + 2 if self.experts.residual else 0
        return total
