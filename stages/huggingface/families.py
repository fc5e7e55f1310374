"""The families of models that can be read and written, each as a table: its config and the names of its modules.

`modules` maps each module of the decoder to that of the family; `{}` stands for the layer. Three modules on the right
are queries, keys and values, which the decoder holds in one fused matrix. The module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from stages.base import StageError
from stages.huggingface.family_configs import Bloom, FamilyConfig, Llama, Opt
from stages.model.config import DecoderConfig
from stages.model.parameters import parameter_shapes

HEAD = "lm_head"


@dataclass(frozen=True)
class Family:
    """A model type of Hugging Face's `transformers`."""

    name: str  # `model_type`
    architecture: str  # the class that loads it
    config: type[FamilyConfig]
    base: str  # prefix of all names except the head; absent in files that were saved without a head
    modules: Mapping[str, tuple[str, ...]]
    derived: tuple[str, ...] = ()  # buffers in old files that follow from the config

    def names(self, config: DecoderConfig) -> dict[str, tuple[str, ...]]:
        """For every tensor of the decoder, the names of the one or three tensors that hold it in this family."""
        found = {}
        for name in parameter_shapes(config):
            module, _, kind = name.rpartition(".")
            fields = module.split(".", 2)
            row, layer = (f"blocks.{{}}.{fields[2]}", fields[1]) if fields[0] == "blocks" else (module, "")
            prefix = "" if module == HEAD else self.base
            found[name] = tuple(f"{prefix}{theirs.format(layer)}.{kind}" for theirs in self.modules[row])
        return found


BLOOM = Family(
    name="bloom",
    architecture="BloomForCausalLM",
    config=Bloom,
    base="transformer.",
    modules={
        "word_embeddings": ("word_embeddings",),
        "word_embeddings_layernorm": ("word_embeddings_layernorm",),
        "blocks.{}.input_layernorm": ("h.{}.input_layernorm",),
        "blocks.{}.self_attention.query_key_value": ("h.{}.self_attention.query_key_value",),
        "blocks.{}.self_attention.dense": ("h.{}.self_attention.dense",),
        "blocks.{}.post_attention_layernorm": ("h.{}.post_attention_layernorm",),
        "blocks.{}.mlp.dense_h_to_4h": ("h.{}.mlp.dense_h_to_4h",),
        "blocks.{}.mlp.dense_4h_to_h": ("h.{}.mlp.dense_4h_to_h",),
        "ln_f": ("ln_f",),
        HEAD: (HEAD,),
    },
)

OPT = Family(
    name="opt",
    architecture="OPTForCausalLM",
    config=Opt,
    base="model.",
    modules={
        "word_embeddings": ("decoder.embed_tokens",),
        "position_embeddings": ("decoder.embed_positions",),
        "blocks.{}.input_layernorm": ("decoder.layers.{}.self_attn_layer_norm",),
        "blocks.{}.self_attention.query_key_value": (
            "decoder.layers.{}.self_attn.q_proj",
            "decoder.layers.{}.self_attn.k_proj",
            "decoder.layers.{}.self_attn.v_proj",
        ),
        "blocks.{}.self_attention.dense": ("decoder.layers.{}.self_attn.out_proj",),
        "blocks.{}.post_attention_layernorm": ("decoder.layers.{}.final_layer_norm",),
        "blocks.{}.mlp.dense_h_to_4h": ("decoder.layers.{}.fc1",),
        "blocks.{}.mlp.dense_4h_to_h": ("decoder.layers.{}.fc2",),
        "ln_f": ("decoder.final_layer_norm",),
        HEAD: (HEAD,),
    },
)

LLAMA = Family(
    name="llama",
    architecture="LlamaForCausalLM",
    config=Llama,
    base="model.",
    modules={
        "word_embeddings": ("embed_tokens",),
        "blocks.{}.input_layernorm": ("layers.{}.input_layernorm",),
        "blocks.{}.self_attention.query_key_value": (
            "layers.{}.self_attn.q_proj",
            "layers.{}.self_attn.k_proj",
            "layers.{}.self_attn.v_proj",
        ),
        "blocks.{}.self_attention.dense": ("layers.{}.self_attn.o_proj",),
        "blocks.{}.post_attention_layernorm": ("layers.{}.post_attention_layernorm",),
        "blocks.{}.mlp.dense_h_to_4h": ("layers.{}.mlp.up_proj",),
        "blocks.{}.mlp.dense_gate": ("layers.{}.mlp.gate_proj",),
        "blocks.{}.mlp.dense_4h_to_h": ("layers.{}.mlp.down_proj",),
        "ln_f": ("norm",),
        HEAD: (HEAD,),
    },
    derived=("layers.{}.self_attn.rotary_emb.inv_freq",),
)

FAMILIES = {family.name: family for family in (BLOOM, OPT, LLAMA)}


def read_config(values: object, where: str) -> tuple[Family, DecoderConfig]:
    """The family and the decoder config that a `config.json` describes. `where` names the file in errors.

    Raises StageError if it is not a config, if its family is unknown, or if the decoder does not compute it.
    """
    kind = values.get("model_type") if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise StageError(f"{where}: model_type is {kind!r}, expected one of {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    try:
        return family, _plain(family.config.model_validate(values).decoder())
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        found = f"{key} is {first['input']!r}: " if key else ""
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] != "value_error":  # those messages say it themselves
            message += f"; this variant of {kind} is not supported"
        raise StageError(f"{where}: {found}{message}") from None


def write_config(config: DecoderConfig) -> tuple[Family, dict[str, Any]]:
    """The family that can represent a decoder, and its `config.json` without the names of files and types.

    A family can represent the decoder if its config, read again, gives the same one. Raises StageError if none can, or
    if `transformers` would not load the model.
    """
    if config.quantization is not None or config.experts is not None:
        kind = "quantized" if config.quantization is not None else "mixture-of-experts"
        raise StageError(
            f"a {kind} model cannot be exported, since no family can represent it; export the dense model that it was "
            "made from"
        )
    wanted = _plain(config).model_dump(
        exclude={"embedding_deviation", "document_start"}
    )  # the tokenizer has the latter
    differences: dict[str, list[str]] = {}
    for family in FAMILIES.values():
        values = family.config.of(config)
        try:
            found = _plain(family.config.model_validate(values).decoder()).model_dump()
        except ValidationError as error:
            differences[family.name] = [".".join(map(str, one["loc"])) for one in error.errors()]
            continue
        differences[family.name] = [name for name, value in wanted.items() if found[name] != value]
        if not differences[family.name]:
            if refusals := list(family.config.refusals(config)):
                raise StageError(
                    f"the model cannot be exported as {family.name}: transformers would not load it, since "
                    f"{'; '.join(refusals)}"
                )
            return family, {"architectures": [family.architecture], "model_type": family.name} | values
    nearest = min(differences, key=lambda name: len(differences[name]))
    raise StageError(
        f"the model cannot be exported: no family can represent it; the nearest is {nearest}, which differs in "
        f"{', '.join(differences[nearest])}"
    )


def _plain(config: DecoderConfig) -> DecoderConfig:
    """The same decoder with optional sizes set to None where they equal their defaults."""
    same = {
        "key_value_heads": config.key_value_heads == config.heads,
        "attention_head_size": config.attention_head_size == config.hidden_size / config.heads,
        "feed_forward_size": config.feed_forward_size == 4 * config.hidden_size,
    }
    return config.model_copy(update={name: None for name, default in same.items() if default})
