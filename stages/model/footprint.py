"""The memory that a model takes for inference, forecast from its config alone. The module does not import torch.

Training has its own forecast (`stages/training/memory_plan.py`).
"""

from __future__ import annotations

from stages.model.config import DecoderConfig
from stages.model.quantization_schemes import FLOAT32_BYTES, stored_tensors

RUNTIME_BYTES = 480 << 20  # a process that has imported torch and Ray, before its first tensor
BATCH_SAMPLES = 8  # held-out samples that are computed in one batch
BATCH_TOKENS = 8192  # tokens of the windows that are evaluated in one batch
ATTENDING_QUERIES = 64  # queries whose scores of all cached keys are held at once
LOGITS_LIMIT = 1 << 25  # logits that are held at once, at most


def weight_bytes(config: DecoderConfig) -> int:
    """Exact bytes of the tensors of a loaded model: float32, with quantized matrices as their scheme stores them."""
    return sum(tensor.nbytes for tensor in stored_tensors(config).values())


def cache_bytes(config: DecoderConfig, sequences: int) -> int:
    """Exact bytes of a float32 key-value cache for `sequences` sequences of the model's whole context."""
    numbers_per_token = 2 * config.layers * config.grouped_heads * config.head_size
    return FLOAT32_BYTES * numbers_per_token * config.context_length * sequences


def attention_bytes(config: DecoderConfig) -> int:
    """The bytes of the attention scores of a pass with a full float32 key-value cache, at their peak."""
    return 3 * FLOAT32_BYTES * config.heads * ATTENDING_QUERIES * config.context_length


def forward_bytes(config: DecoderConfig, samples: int, length: int) -> int:
    """An upper estimate of the bytes that a forward pass of [samples, length] tokens allocates at its peak, in float32
    and without gradients: the tensors of one block, the attention bias, and the logits.

    The logits are limited to `LOGITS_LIMIT` numbers, since whatever measures losses splits larger batches. The tests
    hold the estimate to between 1 and 3 times the resident memory that a process measures.
    """
    tokens = samples * length
    networks = config.experts.top_k + config.experts.residual if config.experts else 1
    attended = (config.heads + 2 * config.grouped_heads) * config.head_size
    inner = max(config.inner_size, networks * config.expert_inner_size)
    block = tokens * (6 * config.hidden_size + 2 * attended + 3 * inner)
    bias = 2 * samples * (config.heads if config.position == "alibi" else 1) * length**2
    logits = 3 * min(tokens * config.vocab_size, LOGITS_LIMIT)
    return FLOAT32_BYTES * (block + bias + logits)
