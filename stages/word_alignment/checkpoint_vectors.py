"""Word vectors from a language model: the mean of the input embeddings of the tokens that write a word."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.encoding import encode_batch
from stages.base import StageError
from stages.word_alignment.linear import Array

EMBEDDING = "word_embeddings.weight"


def token_ids(checkpoint: Checkpoint, words: Sequence[str]) -> list[list[int]]:
    """The tokens of each word as it stands in a text: after a space."""
    return encode_batch(checkpoint.tokenizer(), [f" {word}" for word in words])


def embeddings(checkpoint: Checkpoint) -> Array:
    """The input embedding [tokens, hidden size] in float32. Raises StageError if it is quantized."""
    import torch

    with checkpoint.open_tensors() as tensors:
        if EMBEDDING not in tensors or not tensors.headers[EMBEDDING].dtype.is_floating_point:
            raise StageError(
                f"{checkpoint.path}: the embedding of this model is quantized; give the model from before quantization"
            )
        return tensors[EMBEDDING].to(torch.float32).numpy()


def word_vectors(checkpoint: Checkpoint, words: Sequence[str]) -> Array:
    """The vectors [words, hidden size] of `words`, in float32."""
    rows = embeddings(checkpoint)
    return np.stack([rows[ids].mean(axis=0) for ids in token_ids(checkpoint, words)])
