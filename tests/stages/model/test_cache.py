from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.model.cache import CacheFullError, KeyValueCache
from tests.stages.model.models import SHAPES, random_tokens, shaped, small_config, small_model

MODEL = small_model()
MODELS = {shape: small_model(shaped(shape)) for shape in SHAPES}


def close(ours: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=0)


@given(parts=st.lists(st.integers(1, 9), min_size=1, max_size=6), shape=st.sampled_from(list(SHAPES)))
@settings(max_examples=30)
@torch.inference_mode()
def test_decoding_in_parts_equals_the_whole(parts: list[int], shape: str) -> None:
    model = MODELS[shape]
    tokens, cache = random_tokens(2, sum(parts)), KeyValueCache(model.config, 2)
    pieces = [model(piece, cache=cache) for piece in tokens.split(parts, 1)]
    close(torch.cat(pieces, 1), model(tokens))
    assert cache.lengths.tolist() == [sum(parts)] * 2


@given(st.data())
@settings(max_examples=30)
@torch.inference_mode()
def test_sequences_of_different_lengths_and_padding_on_either_side(data: st.DataObject) -> None:
    model = MODELS[data.draw(st.sampled_from(list(SHAPES)))]
    lengths = data.draw(st.lists(st.integers(0, 7), min_size=3, max_size=3))
    width, left = max(*lengths, 1), data.draw(st.booleans())
    cache, sequences = KeyValueCache(model.config, 3, 40), random_tokens(3, 20)
    first = torch.full((3, width), 3)
    mask = torch.zeros(3, width)
    for row, length in enumerate(lengths):
        where = slice(width - length, width) if left else slice(0, length)
        first[row, where], mask[row, where] = sequences[row, :length], 1
    logits = model(first, attention_mask=mask, cache=cache)
    assert logits.isfinite().all()
    for row, length in enumerate(lengths):
        if length:
            close(logits[row, mask[row].bool()], model(sequences[row : row + 1, :length])[0])
    for step in range(2):
        following = torch.stack([sequences[row, length + step] for row, length in enumerate(lengths)])[:, None]
        logits = model(following, cache=cache)
        for row, length in enumerate(lengths):
            close(logits[row, 0], model(sequences[row : row + 1, : length + step + 1])[0, -1])
    assert cache.lengths.tolist() == [length + 2 for length in lengths]


@torch.inference_mode()
def test_rows_come_and_go() -> None:
    """The operations of continuous batching: fill one row, decode all rows, drop one, close the gap."""
    cache, tokens = KeyValueCache(MODEL.config, 4), random_tokens(3, 30)
    for row, length in enumerate((5, 17, 9)):
        MODEL(tokens[row : row + 1, :length], cache=cache.rows(row, row + 1))
    assert cache.lengths.tolist() == [5, 17, 9, 0]
    cache.move(2, 0)
    assert cache.lengths.tolist() == [9, 17, 0, 0]
    logits = MODEL(torch.stack([tokens[2, 9:10], tokens[1, 17:18]]), cache=cache.rows(0, 2))
    close(logits[0, 0], MODEL(tokens[2:3, :10])[0, -1])
    close(logits[1, 0], MODEL(tokens[1:2, :18])[0, -1])
    cache.truncate(1, 8)
    close(MODEL(tokens[1:2, 8:12], cache=cache.rows(1, 2))[0, -1], MODEL(tokens[1:2, :12])[0, -1])
    cache.clear(0)
    close(MODEL(tokens[:1, :3], cache=cache.rows(0, 1)), MODEL(tokens[:1, :3]))


def test_bounds() -> None:
    cache = KeyValueCache(small_config(), 2, 10)
    MODEL(random_tokens(2, 10), cache=cache)
    with pytest.raises(CacheFullError, match="would have 11 tokens; the cache holds 10"):
        MODEL(random_tokens(2, 1), cache=cache)
    assert cache.lengths.tolist() == [10, 10]
    with pytest.raises(ValueError, match="has 10 tokens, cannot keep 11"):
        cache.truncate(0, 11)
    with pytest.raises(ValueError, match="expected 1 to the context_length 128"):
        KeyValueCache(small_config(), 1, 129)
    with pytest.raises(ValueError, match="cannot be combined"):
        MODEL(random_tokens(2, 1), cache=cache, documents=torch.zeros(2, 1))
    assert cache.nbytes == 2 * 2 * 2 * 10 * 48 * 4  # sequences, keys and values, layers, tokens, hidden, fp32
    grouped = KeyValueCache(shaped("llama"), 2, 10)
    assert grouped.nbytes == cache.nbytes // 3  # 2 heads of keys and values instead of 6
