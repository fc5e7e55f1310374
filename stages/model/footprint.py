"""What a model takes of memory where it computes without being trained, and what is known of one that is not made yet.

No torch: `plan` calls it.
"""

from __future__ import annotations

import math

from stages.model.config import DecoderConfig
from stages.model.shapes import tensor_shapes

RUNTIME_BYTES = 480 << 20  # a process with torch and Ray in it, before the first tensor
BATCH_SAMPLES = 8  # held-out samples that are computed together
BATCH_TOKENS = 8192  # of windows that are evaluated together
LOGITS_LIMIT = 1 << 25  # logits held at once


def weight_bytes(config: DecoderConfig) -> int:
    """Bytes of a model that was loaded: float32, quantized matrices int8 with a scale for each row."""
    return sum(
        math.prod(shape) + 4 * math.prod(shape[:-1])
        if config.quantization and _is_quantized(name, len(shape))
        else 4 * math.prod(shape)
        for name, shape in tensor_shapes(config).items()
    )


def cache_bytes(config: DecoderConfig, sequences: int) -> int:
    """Bytes of a key-value cache for so many sequences of the model's whole context, float32."""
    return 4 * 2 * config.layers * config.grouped_heads * config.head_size * config.context_length * sequences


def forward_bytes(config: DecoderConfig, samples: int, length: int) -> int:
    """Bytes of a forward pass that keeps nothing: one block's tensors, the attention's bias, logits; float32."""
    tokens = samples * length
    networks = config.experts.top_k + config.experts.residual if config.experts else 1
    attended = (config.heads + 2 * config.grouped_heads) * config.head_size
    inner = max(config.inner_size, networks * config.expert_inner_size)
    block = tokens * (6 * config.hidden_size + 2 * attended + 3 * inner)
    bias = 2 * samples * (config.heads if config.position == "alibi" else 1) * length**2
    logits = 3 * min(tokens * config.vocab_size, LOGITS_LIMIT)
    return 4 * (block + bias + logits)


def _is_quantized(name: str, dimensions: int) -> bool:
    small = ("position_embeddings.weight", "gate.weight", "coefficient.weight")
    return dimensions > 1 and name.endswith("weight") and (not name.endswith(small) or "dense_gate" in name)
