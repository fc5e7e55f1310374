"""Small models for the tests: with weights large enough that every part of the architecture matters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from stages.model.config import DecoderConfig
from stages.model.decoder import Decoder
from stages.model.initialise import initialise


def small_config(**changes: Any) -> DecoderConfig:
    values: dict[str, Any] = {
        "vocab_size": 300, "hidden_size": 48, "layers": 2, "heads": 6, "context_length": 128, "initial_deviation": 0.2,
    }  # fmt: skip
    return DecoderConfig(**(values | changes))


def small_model(config: DecoderConfig | None = None, seed: int = 0) -> Decoder:
    model = Decoder(config or small_config())
    initialise(model, seed)
    with torch.no_grad():  # biases and LayerNorms away from their neutral values
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                generator = torch.Generator().manual_seed(len(name))
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model.eval()


def random_tokens(batch: int, length: int, vocab_size: int = 300, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def byte_tokenizer(path: Path) -> Path:
    """A tokenizer of 260 tokens: BLOOM's four special ones and the 256 bytes."""
    alphabet = ["<unk>", "<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", "<pad>"])
    tokenizer.save(str(path))
    return path


# The shapes of other families, each with something that the others lack.
SHAPES: dict[str, dict[str, Any]] = {
    "bloom": {},
    "opt": {
        "position": "learned", "position_offset": 2, "feed_forward": "relu", "embedding_norm": False,
    },
    "llama": {
        "position": "rotary", "key_value_heads": 2, "feed_forward": "swiglu", "feed_forward_size": 80,
        "normalisation": "rms", "embedding_norm": False, "biases": False, "tied_head": False,
    },
    "llama3": {
        "position": "rotary", "key_value_heads": 3, "attention_head_size": 10, "feed_forward": "swiglu",
        "normalisation": "rms", "embedding_norm": False, "biases": False, "rotary_base": 500.0,
        "rotary_scaling": {"kind": "llama3", "factor": 8.0, "original_context_length": 64},
    },
    "palm": {
        "position": "rotary", "key_value_heads": 1, "attention_head_size": 12, "feed_forward": "swiglu",
        "embedding_norm": False, "biases": False, "parallel_blocks": True, "logit_scale": 0.25,
        "embedding_deviation": 1.0,
    },
}  # fmt: skip
FAMILIES = ("bloom", "opt", "llama", "llama3")  # those that `transformers` has


def shaped(shape: str, **changes: Any) -> DecoderConfig:
    """A small model in one of `SHAPES`."""
    return small_config(**(SHAPES[shape] | changes))
