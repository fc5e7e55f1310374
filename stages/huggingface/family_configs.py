"""Hugging Face's `config.json` of each family as typed values, for reading and writing.

Reading refuses configs that the decoder does not compute: a field that changes the computation accepts only the values
that are supported. Fields that are not listed here (dropout, leftovers of training frameworks) have no effect on
inference. A field that is null has its default, as in `transformers`. The module does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, model_validator

from stages.model.config import DecoderConfig, RotaryScaling

# Limits on the values of a file, far above those of any model: a config is read before its tensors are.
Whole = Annotated[float, Field(ge=1, le=1)]  # the share of a head's numbers that is rotated
Deviation = Annotated[float, Field(ge=0)]  # of initial weights; 0 is written for weights that are never drawn
Width = Annotated[int, Field(gt=0, le=1 << 20)]
Rows = Annotated[int, Field(gt=0, le=1 << 24)]
Layers = Annotated[int, Field(gt=0, le=1 << 12)]
TokenId = Annotated[int, Field(ge=0, le=1 << 24)]
# The configs of old models write "no such token" as -1.
OptionalTokenId = Annotated[TokenId | None, BeforeValidator(lambda value: None if value == -1 else value)]
EndTokenIds = Annotated[
    tuple[TokenId, ...],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else () if value == -1 else (value,)),
]
DEVIATION = 0.02  # the default of all families
# Of each type of scaled rotary positions: the parameters without which `transformers` refuses it.
ROPE_NEEDS = {"linear": ("factor",), "llama3": ("factor", "low_freq_factor", "high_freq_factor")}


class _Values(BaseModel):
    """A JSON object of a config. Null and the empty object stand for a field that is left out."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, populate_by_name=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value not in (None, {})}


class FamilyConfig(_Values):
    """The fields that the `config.json` of every family has."""

    vocab_size: Rows
    hidden_size: Width
    bos_token_id: OptionalTokenId = None
    eos_token_id: EndTokenIds = ()
    pad_token_id: OptionalTokenId = None
    quantization_config: None = None

    @model_validator(mode="before")
    @classmethod
    def _names_agree(cls, values: object) -> object:
        """Two names of one size have the same value: which of them `transformers` takes depends on the size."""
        if not isinstance(values, dict):
            return values
        for field in cls.model_fields.values():
            if not isinstance(field.validation_alias, AliasChoices):
                continue
            found = {str(name): values[name] for name in field.validation_alias.choices if values.get(name) is not None}
            if any(value != next(iter(found.values())) for value in found.values()):
                said = ", but ".join(f"{name} is {value!r}" for name, value in found.items())
                raise ValueError(f"{said}, although both are names of one size: remove the wrong one")
        return values

    def decoder(self) -> DecoderConfig:
        """The config of the equivalent decoder. Raises pydantic's ValidationError if there is none."""
        raise NotImplementedError

    @classmethod
    def of(cls, config: DecoderConfig) -> dict[str, Any]:
        """The JSON values for a decoder's config. They represent it if reading them back gives an equal config."""
        raise NotImplementedError

    @classmethod
    def refusals(cls, config: DecoderConfig) -> Iterator[str]:
        """Why `transformers` would not load this decoder, although the family can represent it."""
        ids = [("bos_token_id", config.bos_token_id), ("pad_token_id", config.pad_token_id)]
        for name, index in [*ids, *(("eos_token_id", end) for end in config.end_tokens)]:
            if index is not None and index >= config.vocab_size:
                yield f"{name} {index} is not a token: vocab_size is {config.vocab_size}"

    def _common(self) -> dict[str, Any]:
        first, *others = dict.fromkeys(self.eos_token_id)
        return {
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "eos_token_id": first,
            "other_end_token_ids": tuple(others),
            "bos_token_id": self.bos_token_id,
            "pad_token_id": self.pad_token_id,
        }

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if not self.eos_token_id:
            raise ValueError(
                "eos_token_id names no token: set it to the token that ends a text, without which no text would end"
            )
        return self


class Bloom(FamilyConfig):
    hidden_size: Width = Field(validation_alias=AliasChoices("hidden_size", "n_embed"))
    layers: Layers = Field(validation_alias=AliasChoices("n_layer", "num_hidden_layers"))
    heads: Width = Field(validation_alias=AliasChoices("n_head", "num_attention_heads"))
    inner_size: Width | None = Field(None, validation_alias="n_inner")
    seq_length: Rows = 2048
    layer_norm_epsilon: PositiveFloat = 1e-5
    initializer_range: Deviation = 0.02
    apply_residual_connection_post_layernorm: Literal[False] = False
    tie_word_embeddings: bool = True

    def decoder(self) -> DecoderConfig:
        return DecoderConfig(
            **self._common(),
            layers=self.layers,
            heads=self.heads,
            feed_forward_size=self.inner_size,
            context_length=self.seq_length,
            layer_norm_epsilon=self.layer_norm_epsilon,
            tied_head=self.tie_word_embeddings,
            initial_deviation=self.initializer_range or DEVIATION,
        )

    @classmethod
    def of(cls, config: DecoderConfig) -> dict[str, Any]:
        return _ids(config) | {
            "n_layer": config.layers,
            "n_head": config.heads,
            "seq_length": config.context_length,
            "layer_norm_epsilon": config.layer_norm_epsilon,
            "initializer_range": config.initial_deviation,
            "apply_residual_connection_post_layernorm": False,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "tie_word_embeddings": config.tied_head,
        }


class Opt(FamilyConfig):
    num_hidden_layers: Layers
    num_attention_heads: Width
    ffn_dim: Width
    max_position_embeddings: Rows = 2048
    word_embed_proj_dim: Width | None = None
    init_std: Deviation = 0.02
    activation_function: Literal["relu"] = "relu"
    do_layer_norm_before: Literal[True] = True  # opt-350m has post-norm blocks
    remove_final_layer_norm: Literal[False] = Field(False, validation_alias="_remove_final_layer_norm")
    enable_bias: Literal[True] = True
    layer_norm_elementwise_affine: Literal[True] = True
    tie_word_embeddings: bool = True

    @model_validator(mode="after")
    def _embeds_at_full_width(self) -> Self:
        if self.word_embed_proj_dim not in (None, self.hidden_size):
            raise ValueError(
                f"word_embed_proj_dim {self.word_embed_proj_dim} differs from hidden_size {self.hidden_size}: "
                "projected embeddings (opt-350m) are not supported"
            )
        return self

    def decoder(self) -> DecoderConfig:
        return DecoderConfig(
            **self._common(),
            layers=self.num_hidden_layers,
            heads=self.num_attention_heads,
            feed_forward_size=self.ffn_dim,
            feed_forward="relu",
            position="learned",
            position_offset=2,
            embedding_norm=False,
            tied_head=self.tie_word_embeddings,
            context_length=self.max_position_embeddings,
            initial_deviation=self.init_std or DEVIATION,
        )

    @classmethod
    def of(cls, config: DecoderConfig) -> dict[str, Any]:
        return _ids(config) | {
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "ffn_dim": config.inner_size,
            "word_embed_proj_dim": config.hidden_size,
            "max_position_embeddings": config.context_length,
            "init_std": config.initial_deviation,
            "activation_function": "relu",
            "do_layer_norm_before": True,
            "enable_bias": True,
            "layer_norm_elementwise_affine": True,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "tie_word_embeddings": config.tied_head,
        }


class RopeParameters(_Values):
    """Rotary positions in a Llama config: `rope_parameters`, or `rope_scaling` before transformers 5.

    Parameters of other types than these have no effect in `transformers` either.
    """

    rope_type: Literal["default", "linear", "llama3"] = "default"
    rope_theta: float | None = None
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: Rows | None = None
    partial_rotary_factor: Whole = 1.0

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, values: object) -> object:
        """`type` is the older name of `rope_type`; transformers 5 writes both."""
        if not isinstance(values, dict):
            return values
        nested = [name for name, value in values.items() if isinstance(value, dict)]
        if nested:
            raise ValueError(f"{', '.join(nested)}: positions that differ between layers are not supported")
        old, new = values.get("type"), values.get("rope_type")
        if None not in (old, new) and old != new:
            raise ValueError(f"rope_type is {new!r}, but type, its older name, is {old!r}: remove the wrong one")
        kind = new if old is None else old
        missing = [
            name for one, names in ROPE_NEEDS.items() if one == kind for name in names if values.get(name) is None
        ]
        if missing:
            raise ValueError(f"rope_type is {kind!r}, which needs {', '.join(missing)}")
        return values if old is None else values | {"rope_type": old}

    def scaling(self, context_length: int) -> RotaryScaling | None:
        if self.rope_type == "default":
            return None
        if self.rope_type == "linear":
            return RotaryScaling(kind="linear", factor=self.factor)
        return RotaryScaling(
            kind="llama3",
            factor=self.factor,
            low_frequency_factor=self.low_freq_factor,
            high_frequency_factor=self.high_freq_factor,
            original_context_length=self.original_max_position_embeddings or context_length,
        )


class Llama(FamilyConfig):
    num_hidden_layers: Layers
    num_attention_heads: Width
    num_key_value_heads: Width | None = None
    head_dim: Width | None = None
    intermediate_size: Width
    max_position_embeddings: Rows = 2048
    rms_norm_eps: PositiveFloat = 1e-6
    initializer_range: Deviation = 0.02
    rope_theta: float = 10_000.0
    partial_rotary_factor: Whole = 1.0
    rope_scaling: RopeParameters | None = None
    rope_parameters: RopeParameters | None = None
    tie_word_embeddings: bool = False
    hidden_act: Literal["silu", "swish"] = "silu"  # two names of one function
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False

    def decoder(self) -> DecoderConfig:
        rope = self.rope_scaling or self.rope_parameters or RopeParameters()
        return DecoderConfig(
            **self._common(),
            layers=self.num_hidden_layers,
            heads=self.num_attention_heads,
            key_value_heads=self.num_key_value_heads,
            attention_head_size=self.head_dim,
            feed_forward_size=self.intermediate_size,
            feed_forward="swiglu",
            position="rotary",
            rotary_base=self.rope_theta if rope.rope_theta is None else rope.rope_theta,
            rotary_scaling=rope.scaling(self.max_position_embeddings),
            normalisation="rms",
            layer_norm_epsilon=self.rms_norm_eps,
            embedding_norm=False,
            biases=False,
            tied_head=self.tie_word_embeddings,
            context_length=self.max_position_embeddings,
            initial_deviation=self.initializer_range or DEVIATION,
        )

    @classmethod
    def refusals(cls, config: DecoderConfig) -> Iterator[str]:
        yield from super().refusals(config)
        if config.hidden_size % config.heads:
            yield f"hidden_size {config.hidden_size} is not a multiple of heads {config.heads}"
        if config.initial_deviation > 1:
            yield f"initial_deviation {config.initial_deviation} is above 1"

    @classmethod
    def of(cls, config: DecoderConfig) -> dict[str, Any]:
        return _ids(config) | {
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.grouped_heads,
            "head_dim": config.head_size,
            "intermediate_size": config.inner_size,
            "max_position_embeddings": config.context_length,
            "rms_norm_eps": config.layer_norm_epsilon,
            "initializer_range": config.initial_deviation,
            "rope_theta": config.rotary_base,
            "rope_scaling": _rope_scaling(config.rotary_scaling),
            "tie_word_embeddings": config.tied_head,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
        }


def _ids(config: DecoderConfig) -> dict[str, Any]:
    names = ("vocab_size", "hidden_size", "bos_token_id", "pad_token_id")
    ends = list(config.end_tokens)
    return {name: getattr(config, name) for name in names} | {"eos_token_id": ends if len(ends) > 1 else ends[0]}


def _rope_scaling(scaling: RotaryScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_frequency_factor,
        "high_freq_factor": scaling.high_frequency_factor,
        "original_max_position_embeddings": scaling.original_context_length,
    }
