"""Completions go on from the prompt, greedily or by seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from stages.evaluation.completions import complete
from tests.stages.model.models import byte_tokenizer, small_config, small_model


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(byte_tokenizer(tmp_path / "tokenizer.json")))


def test_greedy_takes_the_likeliest_token_without_a_cache_too(tokenizer: Tokenizer) -> None:
    model = small_model(small_config(vocab_size=260))
    found = complete(model, tokenizer, "hello", max_tokens=12)
    ids = [2, *tokenizer.encode("hello").ids]
    for _ in range(12):
        token = int(model(torch.tensor([ids]))[0, -1].argmax())
        if token == 2:
            break
        ids.append(token)
    assert found.text == tokenizer.decode(ids[6:])
    assert (found.prompt, found.temperature, found.tokens) == ("hello", 0, len(ids) - 6)


def test_samples_repeat_with_their_seed(tokenizer: Tokenizer) -> None:
    model = small_model(small_config(vocab_size=260))
    texts = [complete(model, tokenizer, "x", max_tokens=20, temperature=1.0, seed=seed).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_ends_with_the_text(tokenizer: Tokenizer) -> None:
    model = small_model(small_config(vocab_size=260))
    end = model.word_embeddings.weight[2]
    with torch.no_grad():  # the head is tied: the last normalisation points at the end of text, whatever came before
        model.ln_f.weight.zero_()
        model.ln_f.bias.copy_(100 * end)
    assert complete(model, tokenizer, "x", max_tokens=5).tokens == 0


def test_of_a_long_prompt_the_end_is_used(tokenizer: Tokenizer) -> None:
    model = small_model(small_config(vocab_size=260, context_length=32))
    long, end = "a" * 100 + "bcdefghijklmnopqrstuvwx", "bcdefghijklmnopqrstuvwx"
    assert (
        complete(model, tokenizer, long, max_tokens=9).text
        == complete(model, tokenizer, "a" * 9 + end, max_tokens=9).text
    )
    with pytest.raises(ValueError, match="leaves no room"):
        complete(model, tokenizer, "x", max_tokens=32)
